"""The SQLite catalog: ids, texts, metadata, where each passage's vectors lie; its commit is the index's commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rerank_integrations.core.forking import before_each_fork, forks_held_off
from rerank_integrations.core.index.refusals import lacking_for_read
from rerank_integrations.errors import (
    IndexClosedError,
    IndexFormatError,
    IndexMovedError,
    IndexReadError,
    IndexWriteError,
    RerankError,
)

FORMAT_VERSION = 2
FILENAME = "catalog.sqlite"

_BUSY_TIMEOUT_MS = 60_000
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

# Names of folders of vectors that the catalog has written down before they are made, or no longer names: what a writer
# may remove. Each was `named` in a commit, so that a reader may have it open, or never.
FOLDERS_TABLE = "CREATE TABLE IF NOT EXISTS folders (name TEXT PRIMARY KEY, named INTEGER NOT NULL) WITHOUT ROWID"

# More are opened while more threads read at once; each keeps two or three files open.
_IDLE_CONNECTIONS = 8
# How often a folder that is replaced at this very moment is looked at again.
_TRIES = 5

FileIdentity: TypeAlias = "tuple[int, int]"


class Connection(sqlite3.Connection):
    """A connection to a catalog, with the device and inode of the file that it has open."""

    identity: FileIdentity


class Commit(NamedTuple):
    """Which state a read transaction sees: the file, the index that stands in it, and the number of its commit."""

    identity: FileIdentity
    index_id: str | None
    generation: int | None

    def is_later_than(self, other: Commit) -> bool:
        """Whether it is a later commit of the same index; an unknown number is not."""
        if self.generation is None or other.generation is None:
            return False
        same = (self.identity, self.index_id) == (other.identity, other.index_id)
        return same and self.generation > other.generation


class Catalog:
    """Connections to one catalog: any number of readers at once, one write transaction at a time.

    A read transaction sees one commit from its first statement to its last, whatever is written meanwhile. A reader
    follows its path to the file that stands there now; a writer refuses to go on once that is another one. A fork waits
    for transactions of other threads, and no connection crosses it: what SQLite remembers of a file's locks would be
    wrong in a child, and one of its own mutexes could be taken there for ever.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        # The thread of each connection in use.
        self._users: list[int] = []
        self._identity: FileIdentity | None = None
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
            connection.execute(FOLDERS_TABLE)
            for table in {"segments", "codecs"} & table_names(connection):
                connection.execute(f"INSERT OR REPLACE INTO folders SELECT name, 1 FROM {table}")
            for table in ("passages", "segments", "codecs", "meta"):
                connection.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            # Open readers compare generations, so the count goes on.
            rows = {
                **meta,
                "format": str(FORMAT_VERSION),
                "generation": str(version[0] if version else 0),
                "index_id": uuid.uuid4().hex,
            }
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            if fill is not None:
                fill(connection)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection inside a read transaction."""
        with self._connection() as connection, _translated(self._path, "cannot be read"):
            connection.execute("BEGIN")
            yield connection

    @contextlib.contextmanager
    def write(self, *, new_commit: bool = True) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed with the next generation at the end.

        Whatever is raised inside rolls it back. Without `new_commit` the generation stays: nothing that readers see
        has changed.
        """
        with self._connection() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            if new_commit:
                connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            connection.execute("COMMIT")

    def is_past_all_readers(self, patience_ms: int) -> bool:
        """Whether no reader, in any process, sees a commit older than the last one; waits for some, but not longer.

        SQLite's own proof: the write-ahead log can be copied to its end only if every reader reads its end. Readers on
        a read-only medium take no lock; they begin again if a file is gone.
        """
        with self._connection() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
            try:
                busy, in_log, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            except sqlite3.OperationalError:
                # The disk is full, or another program has the file locked: no proof.
                return False
            finally:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        return not busy and in_log == copied

    def is_in_place(self) -> bool:
        """Whether the file that this catalog first opened still stands at its path."""
        return self._identity is None or _identity(self._path) == self._identity

    def require_in_place(self) -> None:
        """Raise `IndexMovedError` unless `is_in_place`, or `IndexClosedError` if the catalog was closed."""
        self._require_open()
        if not self.is_in_place():
            raise IndexMovedError(
                f"the index that was opened at {self._path.parent} is no longer there: the folder was moved, replaced "
                "or removed. Nothing was written or removed; close this index, and open the one you mean"
            )

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
    def _connection(self) -> Iterator[Connection]:
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
            self._require_open()
            self._users.append(this)
        try:
            yield
        finally:
            with self._changed:
                self._users.remove(this)
                self._changed.notify_all()

    def _take(self) -> Connection:
        stale: list[Connection] = []
        with self._changed:
            if not self._read_only:
                self.require_in_place()
            elif self._identity is not None and _identity(self._path) not in (None, self._identity):
                # Another index stands there now. One that was moved away is read on until then.
                stale, self._idle, self._identity = self._idle, [], None
            if self._idle:
                return self._idle.pop()
        for connection in stale:
            connection.close()
        return self._connect(immutable=False)

    def _put_back(self, connection: Connection, keep: bool) -> None:
        with self._changed:
            keep = keep and not self._closed and connection.identity == self._identity
            if keep and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _require_open(self) -> None:
        if self._closed:
            raise IndexClosedError(f"the index at {self._path.parent} is closed; open it again")

    def _is_immutable(self) -> bool:
        # On a read-only medium SQLite cannot make its shared-memory file, and needs none. Asked anew each time: the
        # folder of someone else may get a writer at any moment.
        if not self._read_only or os.access(self._path.parent, os.W_OK):
            return False
        return self._path.exists() and not Path(f"{self._path}-wal").exists()

    def _connect(self, immutable: bool) -> Connection:
        for _ in range(_TRIES):
            before = _identity(self._path)
            if before is None and self._identity is not None:
                self.require_in_place()
            connection = self._open(immutable)
            after = _identity(self._path)
            # SQLite opens the catalog and then its log, each by its path: both must be of one index.
            if after is not None and before in (None, after):
                connection.identity = after
                with self._changed:
                    if self._read_only or self._identity is None:
                        self._identity = after
                    if after == self._identity:
                        return connection
            connection.close()
            if not self._read_only:
                self.require_in_place()
        raise IndexMovedError(f"{self._path.parent} is replaced again and again; open the index once that is over")

    def _open(self, immutable: bool) -> Connection:
        uri = self._path.resolve().as_uri()
        if self._read_only:
            uri += "?mode=ro&immutable=1" if immutable else "?mode=ro"
        with _translated(self._path, "cannot be opened"):
            connection = sqlite3.connect(
                uri,
                uri=True,
                timeout=_BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
            )
        try:
            if self._read_only:
                with _translated(self._path, "cannot be read"):
                    # Opens the log too.
                    connection.execute("PRAGMA schema_version").fetchone()
            else:
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


def commit_seen(connection: Connection) -> Commit:
    """Return which commit the transaction of `connection` sees; two that are equal hold the same."""
    facts = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'index_id')"))
    try:
        number = int(facts["generation"]) if "generation" in facts else None
    except ValueError as error:
        raise IndexFormatError(f"the catalog is damaged: its generation is {facts['generation']!r}") from error
    return Commit(connection.identity, facts.get("index_id"), number)


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the catalog's tables, SQLite's own left out."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {row[0] for row in connection.execute(query)}


def _identity(path: Path) -> FileIdentity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _translated(path: Path, failed: str, kind: type[RerankError] = IndexFormatError) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        lacking = lacking_for_read(path)
        if lacking is not None:
            raise (lacking if kind is IndexFormatError else kind(f"{path} {failed}: {lacking}")) from error
        if kind is IndexFormatError and "locked" in str(error):
            raise IndexReadError(f"{path} {failed}: another program has it locked ({error})") from error
        raise kind(f"{path} {failed}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IndexFormatError(f"{path} is not a sound catalog: {error}") from error
