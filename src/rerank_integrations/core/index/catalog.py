"""The SQLite catalog: ids, texts, metadata, where each passage's vectors lie; its commit is the index's commit."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rerank_integrations.core.concurrency.forks import before_each_fork, forks_held_off
from rerank_integrations.core.index import row_checksums
from rerank_integrations.core.index.records import CodecRecord, SegmentRecord, codec_record, segment_record
from rerank_integrations.core.index.refusals import is_there, lacking_for_read
from rerank_integrations.core.index.schema import (
    FORMAT_VERSION,
    TABLES,
    drop_everything,
    folder_log,
    last_generation,
    read_meta,
    require_schema,
    table_names,
    upgrade,
    whole_number,
)
from rerank_integrations.errors import (
    IndexClosedError,
    IndexFormatError,
    IndexMovedError,
    IndexReadError,
    IndexWriteError,
    RerankError,
)

_LOGGER = logging.getLogger(__name__)

FILENAME = "catalog.sqlite"

_BUSY_TIMEOUT_MS = 60_000
_NOT_WRITTEN = "cannot be written, so the last commit stands"

# What SQLite says where it cannot write, of which it needs a little for reading too. Python tells from 3.11 on.
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")

# More are opened while more threads read at once; each keeps two or three files open.
_IDLE_CONNECTIONS = 8
# How often a folder that is replaced at this very moment is looked at again.
_TRIES = 5

FileIdentity: TypeAlias = "tuple[int, int]"


class Connection(sqlite3.Connection):
    """A connection to a catalog, with the device and inode of the file that it has open.

    It knows which schema it has checked.
    """

    identity: FileIdentity
    _checked: int | None = None

    def require_schema(self, path: Path) -> None:
        """Raise unless the file holds nothing, or the tables of an index alone; looks again when they have changed."""
        (version,) = self.execute("PRAGMA schema_version").fetchone()
        if version != self._checked:
            require_schema(self, path)
            self._checked = version


class Commit(NamedTuple):
    """Which state a read transaction sees: the file, the index that stands in it, and the number of its commit."""

    identity: FileIdentity
    index_id: str | None
    generation: int | None

    def is_later_than(self, other: Commit) -> bool:
        """Return whether it is a later commit of the same index; an unknown number is not."""
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
        # Before a fork all connections are closed; without this another file might then get the inode.
        self._pin: io.FileIO | None = None
        self._closed = False
        with forks_held_off():
            _CATALOGS.add(self)

    def create(self, meta: dict[str, str], fill: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Make the schema anew, in one transaction: what stood there is gone only if all of it succeeds.

        `fill` may name segments, codecs and passages in it. Open readers compare generations, so the count goes on;
        ``index_id`` tells the new index from the one that stood there.
        """
        with self._transaction() as connection:
            before = last_generation(connection)
            log = folder_log(connection)
            drop_everything(connection)
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.executemany("INSERT INTO folders VALUES (?, ?)", log.items())
            rows = {"index_id": uuid.uuid4().hex, **meta, "format": str(FORMAT_VERSION), "generation": str(before)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            row_checksums.fill(connection)
            row_checksums.watch(connection)
            if fill is not None:
                fill(connection)

    def upgrade(self) -> None:
        """Give a catalog of an older format what this one has, in one transaction; nothing where it is only read."""
        if self._read_only:
            return
        with self.read() as connection:
            old = read_meta(connection, self._path.parent)["format"] != str(FORMAT_VERSION)
        if old:
            with self.write():
                _LOGGER.info("%s becomes an index of format %d", self._path.parent, FORMAT_VERSION)

    def table_names(self) -> set[str]:
        """Return the names of the tables of whatever database stands there; of another program's too."""
        with self._connection() as connection, _translated(self._path, "cannot be read"):
            return table_names(connection)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection inside a read transaction.

        Raises
        ------
        IndexFormatError
            If the file holds anything but the tables of an index, such as triggers and views.
        """
        with self._connection() as connection, _translated(self._path, "cannot be read"):
            connection.execute("BEGIN")
            connection.require_schema(self._path)
            yield connection

    @contextlib.contextmanager
    def write(self, *, new_commit: bool = True) -> Iterator[Connection]:
        """Give a connection inside a write transaction, committed with the next generation at the end.

        Whatever is raised inside rolls it back. Without `new_commit` the generation stays: nothing that readers see
        has changed.

        Raises
        ------
        IndexFormatError
            If what the catalog says of itself, of segments or of codecs was damaged: what is written would make that
            look sound.
        """
        with self._transaction(new_commit) as connection:
            connection.require_schema(self._path)
            # An import logs the folders that it makes before there is an index.
            if "meta" in table_names(connection):
                self._begin(connection)
            yield connection

    def _begin(self, connection: Connection) -> None:
        if read_meta(connection, self._path.parent)["format"] != str(FORMAT_VERSION):
            upgrade(connection)
        elif problems := list(row_checksums.table_problems(connection)):
            raise IndexFormatError(f"{self._path} is damaged: {problems[0]}; nothing was written")
        row_checksums.watch(connection)

    @contextlib.contextmanager
    def _transaction(self, new_commit: bool = True) -> Iterator[Connection]:
        with self._connection() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            if "meta" in table_names(connection):
                if new_commit:
                    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
                row_checksums.settle(connection)
            connection.execute("COMMIT")

    def is_past_all_readers(self, patience_ms: int) -> bool:
        """Return whether no reader, in any process, sees a commit older than the last one; waits `patience_ms` at most.

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
        """Return whether the file that this catalog first opened still stands at its path."""
        return self._identity is None or _identity(self._path) == self._identity

    def require_in_place(self) -> None:
        """Raise unless `is_in_place`.

        Raises
        ------
        IndexClosedError
            If the catalog was closed.
        IndexMovedError
            If another file stands at its path, or none.
        IndexReadError
            If the operating system does not say what stands there.
        """
        self._require_open()
        if not self.is_in_place():
            if lacking := lacking_for_read(self._path):
                raise lacking
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
            pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()
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
        return is_there(self._path) and not is_there(Path(f"{self._path}-wal"))

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
                        if after != self._identity or self._pin is None:
                            self._pin = _pin(self._path, after)
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
            # Before anything reads the schema: no function or virtual table in it may have an effect.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            if self._read_only:
                with _translated(self._path, "cannot be read"):
                    # Opens the log too.
                    connection.execute("PRAGMA schema_version").fetchone()
            else:
                row_checksums.prepare(connection)
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


def commit_seen(connection: Connection) -> Commit:
    """Return which commit the transaction of `connection` sees; two that are equal hold the same."""
    facts = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'index_id')"))
    number = whole_number(facts["generation"]) if "generation" in facts else None
    if number is not None and number < 0:
        raise IndexFormatError(f"the catalog is damaged: its generation is {facts['generation']!r}")
    return Commit(connection.identity, facts.get("index_id"), number)


def segment_records(connection: sqlite3.Connection) -> list[SegmentRecord]:
    """Return what the catalog says of each segment, in the order of their making.

    Raises
    ------
    IndexFormatError
        If what it says of one is damaged.
    """
    query = "SELECT name, passages, tokens, codec, checksums FROM segments ORDER BY number"
    return [segment_record(*row) for row in connection.execute(query)]


def codec_records(connection: sqlite3.Connection) -> list[CodecRecord]:
    """Return the codecs that the catalog names, the newest last.

    Raises
    ------
    IndexFormatError
        If what it says of one is damaged.
    """
    query = "SELECT name, tokens, centroids, step, whole, checksums FROM codecs ORDER BY number"
    return [codec_record(*row) for row in connection.execute(query)]


def insert_segment(connection: sqlite3.Connection, record: SegmentRecord) -> None:
    """Name a segment in the catalog."""
    connection.execute(
        "INSERT INTO segments (name, passages, tokens, codec, checksums) VALUES (?, ?, ?, ?, ?)",
        (record.name, record.passages, record.tokens, record.codec, json.dumps(record.checksums)),
    )


def forget_unused(connection: sqlite3.Connection) -> None:
    """Take the segments without a passage, and the codecs without a segment but the newest, off the catalog.

    Their names go to the log of folders that may be removed. While a name leads nowhere, by damage, whatever seems
    unused may be what it meant, and stays.
    """
    if not unnamed_segments(connection):
        _forget(connection, "segments", "name NOT IN (SELECT segment FROM passages)")
    if not connection.execute(
        "SELECT 1 FROM segments WHERE codec IS NOT NULL AND codec NOT IN (SELECT name FROM codecs) LIMIT 1"
    ).fetchone():
        _forget(
            connection,
            "codecs",
            "name NOT IN (SELECT codec FROM segments WHERE codec IS NOT NULL) "
            "AND number < (SELECT max(number) FROM codecs)",
        )


def unnamed_segments(connection: sqlite3.Connection) -> list[str]:
    """Return the segments that passages point to and the catalog does not name: none, but for damage."""
    # From one name to the next by the index, not over all passages.
    query = """WITH RECURSIVE used(name) AS (
            SELECT min(segment) FROM passages
            UNION ALL SELECT (SELECT min(segment) FROM passages WHERE segment > name) FROM used WHERE name IS NOT NULL
        ) SELECT name FROM used WHERE name IS NOT NULL AND name NOT IN (SELECT name FROM segments)"""
    return [name for (name,) in connection.execute(query)]


def _forget(connection: sqlite3.Connection, table: str, unused: str) -> None:
    connection.execute(f"INSERT OR REPLACE INTO folders SELECT name, 1 FROM {table} WHERE {unused}")
    connection.execute(f"DELETE FROM {table} WHERE {unused}")


def insert_codec(connection: sqlite3.Connection, record: CodecRecord) -> None:
    """Name a codec in the catalog; it is the current one from now."""
    connection.execute(
        "INSERT INTO codecs (name, tokens, centroids, step, whole, checksums) VALUES (?, ?, ?, ?, ?, ?)",
        (record.name, record.tokens, record.centroids, record.step, record.whole, json.dumps(record.checksums)),
    )


def _identity(path: Path) -> FileIdentity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _pin(path: Path, identity: FileIdentity) -> io.FileIO | None:
    """Keep the inode of the file at `path` from being given to another one, for as long as what is returned lives.

    Only Linux can without taking SQLite's locks, which closing any other descriptor of the file would do.
    """
    if not hasattr(os, "O_PATH"):
        return None
    with contextlib.suppress(OSError):
        pin = io.FileIO(path, opener=lambda name, _: os.open(name, os.O_PATH | os.O_CLOEXEC))
        found = os.fstat(pin.fileno())
        if (found.st_dev, found.st_ino) == identity:
            return pin
        pin.close()
    return None


@contextlib.contextmanager
def _translated(path: Path, failed: str, kind: type[RerankError] = IndexFormatError) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "user-defined function" in str(error) or "decode to UTF-8" in str(error):
            raise IndexFormatError(
                f"{path} is damaged: it holds a text that is not UTF-8; verify() says which"
            ) from error
        lacking = lacking_for_read(path)
        if lacking is not None:
            raise (lacking if kind is IndexFormatError else kind(f"{path} {failed}: {lacking}")) from error
        if kind is IndexFormatError and getattr(error, "sqlite_errorname", None) in _NO_ROOM:
            raise IndexReadError(
                f"{path} {failed}: SQLite cannot make its own files beside it ({error}); the disk may be full. "
                "The index itself may be sound."
            ) from error
        if kind is IndexFormatError and "locked" in str(error):
            raise IndexReadError(f"{path} {failed}: another program has it locked ({error})") from error
        raise kind(f"{path} {failed}: {error}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # Python cannot decode SQLite's own message where that quotes a damaged schema.
        raise IndexFormatError(f"{path} is not a sound catalog: {error}") from error
