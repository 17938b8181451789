"""The SQLite catalog: ids, texts, metadata, where each passage's vectors lie; its commit is the index's commit."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rerank_integrations.core.index import row_checksums
from rerank_integrations.core.index.refusals import lacking_for_read
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import (
    IndexClosedError,
    IndexFormatError,
    IndexMovedError,
    IndexReadError,
    IndexWriteError,
    RerankError,
)

_LOGGER = logging.getLogger(__name__)

FORMAT_VERSION = 3
# Format 2 had no checksums in its rows; a writer that opens one adds them.
_READABLE = ("2", "3")
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
    segment TEXT NOT NULL REFERENCES segments(name), ordinal INTEGER NOT NULL, tokens INTEGER NOT NULL,
    content_crc INTEGER, place_crc INTEGER
);
CREATE UNIQUE INDEX passages_place ON passages (segment, ordinal);
CREATE TABLE folders (name TEXT PRIMARY KEY, named INTEGER NOT NULL) WITHOUT ROWID;
"""
_ADDED_IN_3 = ("content_crc", "place_crc")

Schema = frozenset[tuple[str, str, str, str]]
# What else than a table of an index makes of a file, in words.
_NOT_OURS = "expected the tables of an index and nothing else; it may have been made to do harm, so nothing is read"
# Far above any model's; a number in a file is not to ask for all the memory.
_MAX_DIM = 1 << 20

# Names of folders of vectors that the catalog has written down before they are made, or no longer names: what a writer
# may remove. Each was `named` in a commit, so that a reader may have it open, or never.
FOLDERS_TABLE = "CREATE TABLE IF NOT EXISTS folders (name TEXT PRIMARY KEY, named INTEGER NOT NULL) WITHOUT ROWID"

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
        if version == self._checked:
            return
        found = _schema(self)
        if found not in (frozenset(), _folders_alone(), _expected(2), _expected(3)):
            _refuse(self, found, path)
        self._checked = version


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
    follows its path to the file that stands there now; a writer refuses to go on once that is another one.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._inherited: list[Connection] = []
        self._identity: FileIdentity | None = None
        self._pid = os.getpid()
        self._closed = False

    def create(self, meta: dict[str, str], fill: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Make the schema anew, in one transaction: what stood there is gone only if all of it succeeds.

        `fill` may name segments, codecs and passages in it. Open readers compare generations, so the count goes on;
        ``index_id`` tells the new index from the one that stood there.
        """
        with self._transaction() as connection:
            before = _last_generation(connection)
            log = _folder_log(connection)
            _drop_everything(connection)
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.executemany("INSERT INTO folders VALUES (?, ?)", log.items())
            rows = {"index_id": uuid.uuid4().hex, **meta, "format": str(FORMAT_VERSION), "generation": str(before)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            row_checksums.fill(connection)
            row_checksums.watch(connection)
            if fill is not None:
                fill(connection)

    def upgrade(self) -> None:
        """Give a catalog of an older format what this one has, in one transaction; for who is to write it."""
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
            _upgrade(connection)
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
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
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

    def _take(self) -> Connection:
        stale: list[Connection] = []
        with self._lock:
            if self._pid != os.getpid():
                # SQLite connections must not cross a fork; nor may the child close them.
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()
            self._require_open()
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
        with self._lock:
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
                with self._lock:
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


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Return the index's own facts.

    Raises
    ------
    IndexFormatError
        If they are absent, no such facts, or of a format that this version does not read.
    """
    if not table_names(connection) >= {"meta", "passages"}:
        raise IndexFormatError(f"{path} is not an index: its catalog holds no tables of one")
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    _require_readable(meta.get("format"), path)
    if not table_names(connection) >= {"segments", "codecs"}:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks tables")
    missing = {"fingerprint", "generation", "model", "nbits"} - set(meta)
    if missing:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks {', '.join(sorted(missing))}")
    for key, value in meta.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise IndexFormatError(f"{path} is damaged: its catalog has {key!r} as {value!r}; expected two texts")
    for key, least, most in (("generation", 0, 1 << 62), ("nbits", 1, 8), ("dim", 1, _MAX_DIM)):
        if key in meta and not least <= _number(meta[key]) <= most:
            raise IndexFormatError(f"{path} is damaged: its catalog has {key} as {meta[key]!r}; expected a number")
    return meta


def recorded_dim(meta: Mapping[str, str]) -> int:
    """Return how many dimensions the index's vectors have; 0 before the first passage."""
    return int(meta.get("dim", 0))


def commit_seen(connection: Connection) -> Commit:
    """Return which commit the transaction of `connection` sees; two that are equal hold the same."""
    facts = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'index_id')"))
    number = _number(facts["generation"]) if "generation" in facts else None
    if number is not None and number < 0:
        raise IndexFormatError(f"the catalog is damaged: its generation is {facts['generation']!r}")
    return Commit(connection.identity, facts.get("index_id"), number)


def stored_passage(passage_id: Any, text: Any, metadata: Any) -> Passage:
    """Return a passage of these columns, the last of them JSON or what is made of it.

    Raises
    ------
    IndexFormatError
        If they are not what was stored.
    """
    try:
        found = json.loads(metadata) if isinstance(metadata, str) else metadata
    except (ValueError, RecursionError) as error:
        raise IndexFormatError(f"the metadata of passage {passage_id!r} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise IndexFormatError(f"the metadata of passage {passage_id!r} is damaged: expected a JSON object")
    if not isinstance(passage_id, str) or not passage_id:
        raise IndexFormatError(f"the id {passage_id!r} of a passage is damaged: expected a text")
    if not isinstance(text, str):
        raise IndexFormatError(f"the text of passage {passage_id!r} is damaged: expected a text")
    return Passage(passage_id, text, found)


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the catalog's tables, SQLite's own left out."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {row[0] for row in connection.execute(query)}


def _schema(connection: sqlite3.Connection) -> Schema:
    query = "SELECT type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_master"
    rows = connection.execute(query).fetchall()
    return frozenset((str(kind), str(name), str(table), _plain(str(sql))) for kind, name, table, sql in rows)


@functools.cache
def _expected(version: int) -> Schema:
    """Return what a catalog of this format holds, as SQLite itself writes it down."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        found = _schema(connection)
    columns = "".join(f",{column} INTEGER" for column in _ADDED_IN_3)
    if version > 2:
        return found
    return frozenset((*row[:3], row[3].replace(columns, "")) for row in found if row[2] != "folders")


def _folders_alone() -> Schema:
    """Return what a catalog holds while an import writes its folders."""
    return frozenset(row for row in _expected(FORMAT_VERSION) if row[2] == "folders")


def _plain(sql: str) -> str:
    """Return a statement without the white space that means nothing; a column that was added comes after some."""
    return re.sub(r" ?([(),]) ?", r"\1", re.sub(r"\s+", " ", sql))


def _refuse(connection: sqlite3.Connection, found: Schema, path: Path) -> None:
    """Raise the error that says most of a schema that is not an index's."""
    expected = _expected(FORMAT_VERSION)
    tables = {name for kind, name, _, _ in found if kind == "table"}
    if not tables >= {"meta", "passages"}:
        raise IndexFormatError(f"{path.parent} is not an index: its catalog holds no tables of one")
    if {row for row in found if row[1] == "meta"} != {row for row in expected if row[1] == "meta"}:
        raise IndexFormatError(f"{path.parent} is not an index: its catalog's table 'meta' is another")
    row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    _require_readable(row and row[0], path.parent)
    foreign = sorted((kind, name) for kind, name, _, _ in found - expected - _expected(2))
    if foreign:
        raise IndexFormatError(f"{path} is refused: it holds the {foreign[0][0]} {foreign[0][1]!r}; {_NOT_OURS}")
    raise IndexFormatError(f"{path.parent} is damaged: its catalog lacks tables")


def _require_readable(version: object, path: Path) -> None:
    if version not in _READABLE:
        raise IndexFormatError(
            f"{path} is an index of format {version!r}; this version reads {' and '.join(_READABLE)}"
        )


def _upgrade(connection: sqlite3.Connection) -> None:
    for column in _ADDED_IN_3:
        connection.execute(f"ALTER TABLE passages ADD COLUMN {column} INTEGER")
    connection.execute(FOLDERS_TABLE)
    row_checksums.fill(connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT_VERSION),))
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('index_id', ?)", (uuid.uuid4().hex,))


def _last_generation(connection: sqlite3.Connection) -> int:
    if "meta" not in table_names(connection):
        return 0
    row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return max(0, _number(row[0])) if row else 0


def _folder_log(connection: sqlite3.Connection) -> dict[str, int]:
    """Return all folders that the catalog has ever told of and that may still be there, and whether it named them."""
    tables = table_names(connection)
    log = dict(connection.execute("SELECT name, named FROM folders")) if "folders" in tables else {}
    for table in {"segments", "codecs"} & tables:
        log |= {name: 1 for (name,) in connection.execute(f"SELECT name FROM {table}")}
    return log


def _drop_everything(connection: sqlite3.Connection) -> None:
    """Take all off a catalog, triggers and views first: of what somebody put there nothing is to stay."""
    query = (
        "SELECT type, name FROM main.sqlite_master WHERE name NOT LIKE 'sqlite_%' AND type <> 'index' "
        "ORDER BY type = 'table'"
    )
    for kind, name in connection.execute(query).fetchall():
        quoted = str(name).replace('"', '""')
        connection.execute(f'DROP {kind} IF EXISTS main."{quoted}"')


def _number(value: Any) -> int:
    """Return a whole number that is written in digits; -1 for anything else."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else -1


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
        if "user-defined function" in str(error) or "decode to UTF-8" in str(error):
            raise IndexFormatError(
                f"{path} is damaged: it holds a text that is not UTF-8; verify() says which"
            ) from error
        lacking = lacking_for_read(path)
        if lacking is not None:
            raise (lacking if kind is IndexFormatError else kind(f"{path} {failed}: {lacking}")) from error
        if kind is IndexFormatError and "locked" in str(error):
            raise IndexReadError(f"{path} {failed}: another program has it locked ({error})") from error
        raise kind(f"{path} {failed}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IndexFormatError(f"{path} is not a sound catalog: {error}") from error
