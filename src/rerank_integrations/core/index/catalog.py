"""The SQLite catalog: ids, texts, metadata, where each passage's vectors lie; its commit is the index's commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from rerank_integrations.core.forking import before_each_fork, forks_held_off
from rerank_integrations.errors import IndexClosedError, IndexFormatError, IndexWriteError, RerankError

FORMAT_VERSION = 2
FILENAME = "catalog.sqlite"

_NOT_WRITTEN = "cannot be written, so the last commit stands"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE codecs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, tokens INTEGER NOT NULL,
    centroids INTEGER NOT NULL, step REAL NOT NULL, whole INTEGER NOT NULL, checksums TEXT NOT NULL
);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, passages INTEGER NOT NULL,
    tokens INTEGER NOT NULL, codec TEXT REFERENCES codecs(name), checksums TEXT NOT NULL
);
CREATE TABLE passages (
    pid INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL,
    segment TEXT NOT NULL REFERENCES segments(name), ordinal INTEGER NOT NULL, tokens INTEGER NOT NULL
);
CREATE UNIQUE INDEX passages_place ON passages (segment, ordinal);
"""


class Catalog:
    """Connections to one catalog: any number of readers at once, one write transaction at a time.

    A read transaction sees one commit from its first statement to its last, whatever is written meanwhile. A fork waits
    for transactions of other threads, and no connection crosses it: what SQLite remembers of a file's locks would be
    wrong in a child, and one of its own mutexes could be taken there for ever.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._changed = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        # The thread of each connection in use.
        self._users: list[int] = []
        self._closed = False
        with forks_held_off():
            _CATALOGS.add(self)

    def create(self, meta: dict[str, str], fill: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Make the schema anew, in one transaction: what stood there is gone only if all of it succeeds.

        `fill` may name segments, codecs and passages in it.
        """
        with self.write() as connection:
            had_index = "meta" in table_names(connection)
            version = connection.execute(
                "SELECT value FROM meta WHERE key = 'generation'" if had_index else "SELECT 0"
            ).fetchone()
            for table in ("passages", "segments", "codecs", "meta"):
                connection.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            # Open readers compare generations, so the count goes on.
            rows = {**meta, "format": str(FORMAT_VERSION), "generation": str(version[0] if version else 0)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            if fill is not None:
                fill(connection)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a read transaction."""
        with self._connection() as connection, _translated(self._path, "cannot be read"):
            connection.execute("BEGIN")
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a write transaction, committed with the next generation at the end.

        Whatever is raised inside rolls it back.
        """
        with self._connection() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            connection.execute("COMMIT")

    def reclaim(self) -> None:
        """Give the space of deleted rows back to the file system; another atomic step of SQLite's."""
        with self._connection() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("VACUUM")

    def close(self) -> None:
        """Close every connection, those in use when they are done; no new one is given."""
        with forks_held_off(), self._changed:
            self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that no thread uses; the next call opens another."""
        with forks_held_off(), self._changed:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def wait_unused(self, seconds: float) -> None:
        """Wait until no other thread uses a connection, and at most so long."""
        this = threading.get_ident()
        with forks_held_off(), self._changed:
            self._changed.wait_for(lambda: all(user == this for user in self._users), seconds)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with forks_held_off(), self._in_use():
            immutable = self._is_immutable()
            connection = self._connect(immutable) if immutable else self._take()
            keep = not immutable
            try:
                yield connection
            finally:
                try:
                    connection.rollback()
                except sqlite3.Error:
                    keep = False
                self._put_back(connection, keep)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        this = threading.get_ident()
        with self._changed:
            if self._closed:
                raise IndexClosedError(f"the index at {self._path.parent} is closed; open it again")
            self._users.append(this)
        try:
            yield
        finally:
            with self._changed:
                self._users.remove(this)
                self._changed.notify_all()

    def _take(self) -> sqlite3.Connection:
        with self._changed:
            if self._idle:
                return self._idle.pop()
        return self._connect(immutable=False)

    def _put_back(self, connection: sqlite3.Connection, keep: bool) -> None:
        with self._changed:
            if keep and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _is_immutable(self) -> bool:
        # On a read-only medium SQLite cannot make its shared-memory file, and needs none. Asked anew each time: the
        # folder of someone else may get a writer at any moment.
        return self._read_only and not os.access(self._path.parent, os.W_OK) and not Path(f"{self._path}-wal").exists()

    def _connect(self, immutable: bool) -> sqlite3.Connection:
        uri = self._path.resolve().as_uri()
        if self._read_only:
            uri += "?mode=ro&immutable=1" if immutable else "?mode=ro"
        with _translated(self._path, "cannot be opened"):
            connection = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            if not self._read_only:
                with _translated(self._path, _NOT_WRITTEN, IndexWriteError):
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


_CATALOGS: weakref.WeakSet[Catalog] = weakref.WeakSet()


def _close_idle_connections() -> None:
    for catalog in list(_CATALOGS):
        with contextlib.suppress(sqlite3.Error):
            catalog.close_idle()


before_each_fork(_close_idle_connections)


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Return the index's own facts.

    Raises
    ------
    IndexFormatError
        If they are absent or of a format that this version does not read.
    """
    if not table_names(connection) >= {"meta", "passages"}:
        raise IndexFormatError(f"{path} is not an index: its catalog holds no tables of one")
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    if meta.get("format") != str(FORMAT_VERSION):
        raise IndexFormatError(
            f"{path} is an index of format {meta.get('format')!r}; this version reads {FORMAT_VERSION}"
        )
    if not table_names(connection) >= {"segments", "codecs"}:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks tables")
    missing = {"fingerprint", "generation", "model"} - set(meta)
    if missing:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks {', '.join(sorted(missing))}")
    return meta


def generation(connection: sqlite3.Connection) -> int | None:
    """Return the number of the commit that `connection` sees; ``None`` where there is no such row."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return None if row is None else int(row[0])


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the catalog's tables, SQLite's own left out."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {row[0] for row in connection.execute(query)}


@contextlib.contextmanager
def _translated(path: Path, failed: str, kind: type[RerankError] = IndexFormatError) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise kind(f"{path} {failed}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IndexFormatError(f"{path} is not a sound catalog: {error}") from error
