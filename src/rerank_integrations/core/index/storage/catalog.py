"""The SQLite catalog: ids, texts, metadata, where each passage's vectors lie; its commit is the index's commit.

All SQL of the package stands here, but for the conditions that `filters` makes and the full-text tables of
`text_index`. The tables come first, then the queries as methods of `ReadTransaction`, the changes as methods of
`WriteTransaction`, then `Catalog`, which begins and commits transactions. `connections` holds the open connections, and
`catalog_rules` says whether what was read is sound.

The catalog has checksums over what it holds, so that a changed byte in a text, a row or a setting is found. A writing
connection keeps them by itself: triggers of its own, which are no part of the file, see every change of a passage,
whoever makes it, and the totals are written at the end of the transaction. So they cost a few microseconds per changed
row, and no writer can forget them. A row of ``passages`` has two: `content_crc` over what the user gave, and
`place_crc` over where its vectors are. A row that only moves keeps the first, so that moving does not make a damaged
text look sound.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from rerank_integrations.core.index.storage.catalog_rules import (
    FORMAT_VERSION,
    FORMAT_WITHOUT_CHECKSUMS,
    Schema,
    checked_meta,
    content_crc,
    place_crc,
    plain_sql,
    require_index_tables,
    require_readable,
    require_same_meta_table,
    schema_error,
    stored_columns,
    stored_passage,
    table_crc,
    whole_number,
)
from rerank_integrations.core.index.storage.connections import Connection, Connections, FileIdentity
from rerank_integrations.core.index.storage.filters import Sql, json_ids
from rerank_integrations.core.index.storage.records import CodecRecord, SegmentRecord, codec_record, segment_record
from rerank_integrations.core.index.storage.refusals import lacking_for_read
from rerank_integrations.core.index.storage.terms import RULES
from rerank_integrations.core.index.storage.text_index import (
    IS_TEXT_TABLE,
    TEXT_RULES,
    TEXT_TABLES,
    TextReads,
    create_text_tables,
    distrust_schema,
    fill_text_index,
    mend_text_index,
    prepare_connection,
    require_fts5,
    watch_texts,
)
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import (
    IndexFormatError,
    IndexReadError,
    IndexWriteError,
    InvalidInputError,
    RerankError,
)

_LOGGER = logging.getLogger(__name__)

FILENAME = "catalog.sqlite"

# A passage that is a hit: its number, id, text and metadata.
HitRow: TypeAlias = tuple[int, str, str, dict[str, Any]]
# A passage to store: its id, text and metadata, then its segment, ordinal there and number of tokens.
NewRow: TypeAlias = tuple[str, str, str, str, int, int]
# The tables that name folders of vectors; the folders stand in directories of the same names.
FolderKind: TypeAlias = Literal["segments", "codecs"]
FOLDER_KINDS: tuple[FolderKind, ...] = ("segments", "codecs")

_BUSY_TIMEOUT_MS = 60_000
_NOT_WRITTEN = "cannot be written, so the last commit stands"
# SQLite's errors where it cannot write, which it must do a little for reading too. Python names them from 3.11 on.
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")
_MAX_INTEGER = 2**63 - 1
# Bytes of a text and its metadata that are read with others as one value, and how many of them: 64 MB at most.
_SHORT_BYTES = 1 << 14
_ROWS_PER_VALUE = 1 << 10

_TABLES = """
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
# Names of folders of vectors that the catalog has written down before they are made, or no longer names: what a writer
# may remove. Each was `named` in a commit, so that a reader may have it open, or never.
_FOLDERS_TABLE = "CREATE TABLE IF NOT EXISTS folders (name TEXT PRIMARY KEY, named INTEGER NOT NULL) WITHOUT ROWID"

_CONTENT = ("pid", "id", "text", "metadata")
_PLACE = ("pid", "segment", "ordinal", "tokens")
# Keys of `meta`: how many passages there are, the sum of their `content_crc`, and the checksum of the other tables.
_ROWS, _SUM, _TABLES_CRC = "passages", "passages_crc", "tables_crc"


def _content(row: str = "") -> str:
    return f"content_crc({', '.join(row + column for column in _CONTENT)})"


def _place(row: str = "") -> str:
    return f"place_crc({', '.join(row + column for column in _PLACE)})"


_STORED = "(SELECT content_crc FROM passages WHERE pid = new.pid)"
# A replaced row has another text, so its earlier state does not matter. A row that only moved keeps the checksum of a
# damaged place, which proves the damage.
_MOVED = (
    f"CASE WHEN new.text IS NOT old.text OR old.place_crc IS {_place('old.')} "
    f"THEN {_place('new.')} ELSE old.place_crc END"
)
# Temporary ones belong to the connection. An update within a trigger does not fire them again: none is of a checksum.
_WATCH = (
    "CREATE TEMP TABLE IF NOT EXISTS row_changes (rows INTEGER NOT NULL, total INTEGER NOT NULL)",
    "DELETE FROM row_changes",
    "INSERT INTO row_changes VALUES (0, 0)",
    f"""CREATE TEMP TRIGGER IF NOT EXISTS row_added AFTER INSERT ON main.passages BEGIN
        UPDATE passages SET content_crc = {_content("new.")}, place_crc = {_place("new.")} WHERE pid = new.pid;
        UPDATE row_changes SET rows = rows + 1, total = total + {_STORED}; END""",
    f"""CREATE TEMP TRIGGER IF NOT EXISTS row_rewritten AFTER UPDATE OF {", ".join(_CONTENT)} ON main.passages BEGIN
        UPDATE passages SET content_crc = {_content("new.")} WHERE pid = new.pid;
        UPDATE row_changes SET total = total + {_STORED} - coalesce(old.content_crc, 0); END""",
    f"""CREATE TEMP TRIGGER IF NOT EXISTS row_moved AFTER UPDATE OF {", ".join(_PLACE)} ON main.passages BEGIN
        UPDATE passages SET place_crc = {_MOVED} WHERE pid = new.pid; END""",
    """CREATE TEMP TRIGGER IF NOT EXISTS row_removed AFTER DELETE ON main.passages BEGIN
        UPDATE row_changes SET rows = rows - 1, total = total - coalesce(old.content_crc, 0); END""",
)


class Commit(NamedTuple):
    """State that a read transaction sees: the file, the index that stands in it, and the number of its commit."""

    identity: FileIdentity
    index_id: str | None
    generation: int | None

    def is_later_than(self, other: Commit) -> bool:
        """Return whether it is a later commit of the same index; an unknown number is not."""
        if self.generation is None or other.generation is None:
            return False
        same = (self.identity, self.index_id) == (other.identity, other.index_id)
        return same and self.generation > other.generation


class ReadTransaction(TextReads):
    """One commit of an index: every answer is of the same state, whatever is written meanwhile."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def commit(self) -> Commit:
        """Return which commit this transaction sees; two that are equal hold the same."""
        query = "SELECT key, value FROM meta WHERE key IN ('generation', 'index_id')"
        facts = dict(self._connection.execute(query))
        number = whole_number(facts["generation"]) if "generation" in facts else None
        if number is not None and number < 0:
            raise IndexFormatError(f"the catalog is damaged: its generation is {facts['generation']!r}")
        return Commit(self._connection.identity, facts.get("index_id"), number)

    def meta(self) -> dict[str, str]:
        """Return the index's own facts.

        Raises
        ------
        IndexFormatError
            If they are absent, no such facts, or of a format that this version does not read.
        """
        tables = table_names(self._connection)
        if not tables >= {"meta", "passages"}:
            raise IndexFormatError(f"{self._path} is not an index: its catalog holds no tables of one")
        return checked_meta(dict(self._connection.execute("SELECT key, value FROM meta")), tables, self._path)

    # Passages.

    def passage_count(self, condition: Sql | None = None) -> int:
        """Return how many passages there are, or how many of them satisfy a condition of `filters`."""
        return int(self._with_condition("SELECT count(*) FROM passages", condition).fetchone()[0])

    def sizes(self) -> tuple[int, int, int]:
        """Return how many passages, tokens and segments there are."""
        query = "SELECT count(*), coalesce(sum(tokens), 0), (SELECT count(*) FROM segments) FROM passages"
        passages, tokens, segments = self._connection.execute(query).fetchone()
        return passages, tokens, segments

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """Return the passages with these ids, by id; unknown ids are absent."""
        query = "SELECT id, text, metadata FROM passages WHERE id IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(query, (json_ids(ids),)).fetchall()
        return {row[0]: stored_passage(*row) for row in rows}

    def passages_where(self, condition: Sql | None, limit: int | None, offset: int) -> list[Passage]:
        """Return the passages that satisfy a condition of `filters`, in the order in which their ids were added."""
        most = _MAX_INTEGER if limit is None else min(limit, _MAX_INTEGER)
        cut: Sql = ("ORDER BY pid LIMIT ? OFFSET ?", [most, min(offset, _MAX_INTEGER)])
        rows = self._with_condition("SELECT id, text, metadata FROM passages", condition, cut)
        return [stored_passage(*row) for row in rows.fetchall()]

    def ids_after(self, pid: int, condition: Sql | None, limit: int) -> list[tuple[int, str]]:
        """Return the catalog number and id of the next passages after a number that satisfy a condition."""
        sql, parameters = condition or ("1", [])
        later: Sql = (f"pid > ? AND ({sql})", [pid, *parameters])
        rows = self._with_condition("SELECT pid, id FROM passages", later, ("ORDER BY pid LIMIT ?", [limit]))
        return rows.fetchall()

    def texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of the passages with these ids, by id; unknown ids are absent."""
        query = "SELECT id, text FROM passages WHERE id IN (SELECT value FROM json_each(?))"
        return dict(self._connection.execute(query, (json_ids(ids),)))

    def passages_numbered(self, pids: Sequence[int]) -> list[Passage]:
        """Return the passages with these catalog numbers, in that order.

        Raises
        ------
        IndexFormatError
            If one has no row.
        """
        query = "SELECT pid, id, text, metadata FROM passages WHERE pid IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(query, (json.dumps(pids),))
        passages = {pid: stored_passage(*columns) for pid, *columns in rows}
        _require_all(len(passages), pids)
        return [passages[pid] for pid in pids]

    def ids_numbered(self, pids: Sequence[int]) -> dict[int, str]:
        """Return the ids of the passages with these catalog numbers.

        Raises
        ------
        IndexFormatError
            If one has no row, or an id that is no text.
        """
        query = "SELECT pid, id FROM passages WHERE pid IN (SELECT value FROM json_each(?))"
        ids = dict(self._connection.execute(query, (json.dumps(pids),)).fetchall())
        _require_all(len(ids), pids)
        if not all(isinstance(passage_id, str) for passage_id in ids.values()):
            raise IndexFormatError("the catalog is damaged: the id of a passage is no text; verify() says which")
        return ids

    def hit_rows(self, pids: Sequence[int]) -> list[HitRow]:
        """Return the passages with these catalog numbers, in any order.

        Raises
        ------
        IndexFormatError
            If one has no row, or columns that were not stored so.
        """
        # Short ones many in one value: SQLite gives the interpreter up for each row, and with many callers it takes
        # long to come back. Long ones each by itself: SQLite has no value of more than a gigabyte.
        query = f"""SELECT json_group_array(CASE WHEN length(CAST(text AS BLOB)) + length(metadata) <= {_SHORT_BYTES}
            THEN json_array(pid, id, text, json(metadata)) ELSE pid END) FROM passages
            WHERE pid IN (SELECT value FROM json_each(?))"""
        rows: list[HitRow] = []
        for start in range(0, len(pids), _ROWS_PER_VALUE):
            batch = json.dumps(pids[start : start + _ROWS_PER_VALUE])
            for row in json.loads(self._connection.execute(query, (batch,)).fetchone()[0]):
                pid, *columns = row if isinstance(row, list) else self._long_row(row)
                rows.append((pid, *stored_columns(*columns)))
        _require_all(len(rows), pids)
        return rows

    def _long_row(self, pid: int) -> tuple[int, object, object, object]:
        query = "SELECT pid, id, text, metadata FROM passages WHERE pid = ?"
        row: tuple[int, object, object, object] = self._connection.execute(query, (pid,)).fetchone()
        return row

    # Where passages' vectors lie.

    def places_where(self, condition: Sql) -> list[tuple[str, int]]:
        """Return the segment and ordinal of each passage that satisfies a condition of `filters`.

        Raises
        ------
        InvalidInputError
            If SQLite finds the condition too large.
        """
        return self._with_condition("SELECT segment, ordinal FROM passages", condition).fetchall()

    def places_numbered(self, pids: Sequence[int]) -> list[tuple[str, int]]:
        """Return the segment and ordinal of each passage with these catalog numbers."""
        query = "SELECT segment, ordinal FROM passages WHERE pid IN (SELECT value FROM json_each(?))"
        return self._connection.execute(query, (json.dumps(pids),)).fetchall()

    def _with_condition(self, statement: str, condition: Sql | None, tail: Sql = ("", [])) -> sqlite3.Cursor:
        """Execute a statement for the passages that satisfy a condition of `filters`; ``None`` is all of them.

        Raises
        ------
        InvalidInputError
            If SQLite finds the condition too large.
        """
        sql, parameters = condition or ("1", [])
        try:
            return self._connection.execute(f"{statement} WHERE {sql} {tail[0]}", [*parameters, *tail[1]])
        except sqlite3.OperationalError as error:
            # A condition that SQLite cannot compile is the filter's fault; any other error is not.
            if any(sign in str(error) for sign in ("too large", "too many", "stack overflow")):
                raise InvalidInputError(f"the filter is too large: {error}; expected a smaller one, or $in") from error
            raise

    def passages_per_segment(self) -> dict[str, int]:
        """Return how many passages point to each segment that any points to."""
        return dict(self._connection.execute("SELECT segment, count(*) FROM passages GROUP BY segment"))

    def places_in(self, segment: str) -> list[tuple[int, int]]:
        """Return ordinal and catalog number of each passage that points to a segment, in the order of its ordinals."""
        query = "SELECT ordinal, pid FROM passages WHERE segment = ? ORDER BY ordinal"
        return self._connection.execute(query, (segment,)).fetchall()

    def places_in_each(self, segments: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
        """Return what `places_in` returns for each of many segments."""
        query = (
            "SELECT segment, ordinal, pid FROM passages WHERE segment IN (SELECT value FROM json_each(?)) "
            "ORDER BY segment, ordinal"
        )
        places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for segment, ordinal, pid in self._connection.execute(query, (json_ids(segments),)):
            places[segment].append((ordinal, pid))
        return places

    # Segments and codecs.

    def segment_records(self) -> list[SegmentRecord]:
        """Return what the catalog says of each segment, the oldest first.

        Raises
        ------
        IndexFormatError
            If what it says of one is damaged.
        """
        query = "SELECT name, passages, tokens, codec, checksums FROM segments ORDER BY number"
        return [segment_record(*row) for row in self._connection.execute(query)]

    def codec_records(self) -> list[CodecRecord]:
        """Return what the catalog says of each codec, the newest last.

        Raises
        ------
        IndexFormatError
            If what it says of one is damaged.
        """
        query = "SELECT name, tokens, centroids, step, whole, checksums FROM codecs ORDER BY number"
        return [codec_record(*row) for row in self._connection.execute(query)]

    def has_codec(self) -> bool:
        """Return whether the index is compressed."""
        return self._connection.execute("SELECT 1 FROM codecs LIMIT 1").fetchone() is not None

    def newest_codec_name(self) -> str | None:
        """Return the name of the codec that compresses new passages; ``None`` before the first."""
        row = self._connection.execute("SELECT name FROM codecs ORDER BY number DESC LIMIT 1").fetchone()
        name: str | None = row and row[0]
        return name

    def newest_centroid_count(self) -> int:
        """Return how many centroids that codec has; 0 before the first."""
        row = self._connection.execute("SELECT centroids FROM codecs ORDER BY number DESC LIMIT 1").fetchone()
        return row[0] if row else 0

    def unnamed_segments(self) -> list[str]:
        """Return the segments that passages point to and the catalog does not name: none, but for damage."""
        # From one name to the next by the index, not over all passages.
        query = """WITH RECURSIVE used(name) AS (
                SELECT min(segment) FROM passages
                UNION ALL
                SELECT (SELECT min(segment) FROM passages WHERE segment > name) FROM used WHERE name IS NOT NULL
            ) SELECT name FROM used WHERE name IS NOT NULL AND name NOT IN (SELECT name FROM segments)"""
        return [name for (name,) in self._connection.execute(query)]

    def folder_names(self, kind: FolderKind) -> set[str]:
        """Return the folders of one kind that this commit names."""
        if kind not in table_names(self._connection):
            return set()
        return {name for (name,) in self._connection.execute(f"SELECT name FROM {kind}")}

    def folder_log(self) -> dict[str, int]:
        """Return the folders that are logged beside those in use; 1 for each that a commit has named."""
        if "folders" not in table_names(self._connection):
            return {}
        return dict(self._connection.execute("SELECT name, named FROM folders"))

    # Verification.

    def database_problems(self) -> Iterator[str]:
        """Yield each sentence in which SQLite says that the file, or a reference between rows, is broken."""
        with _any_text(self._connection):
            for (finding,) in self._connection.execute("PRAGMA integrity_check").fetchall():
                if finding != "ok":
                    yield finding
            lost: dict[str, int] = defaultdict(int)
            for table, *_ in self._connection.execute("PRAGMA foreign_key_check"):
                lost[table] += 1
        for table, count in sorted(lost.items()):
            yield f"{count} rows of {table} point to rows that are not there"

    def checksum_problems(self) -> Iterator[str]:
        """Yield a sentence for each total of the catalog's checksums that does not fit what it holds."""
        yield from _table_problems(self._connection)
        recorded = _recorded_totals(self._connection)
        if _totals(self._connection) != (recorded[_ROWS], recorded[_SUM]):
            yield (
                f"the checksums of its passages do not add up to those of the {recorded[_ROWS]} passages that were "
                "written"
            )

    def raw_rows(self, *, checksums: bool) -> Generator[tuple[object, ...], None, None]:
        """Yield every passage unchecked: number, id, text, metadata, segment, ordinal, tokens, two checksums.

        Bytes that are not UTF-8 come as lone surrogates. Without `checksums`, as of format 2, they are ``None``. While
        the iterator is open the transaction is for it alone.
        """
        crcs = "content_crc, place_crc" if checksums else "NULL, NULL"
        with _any_text(self._connection):
            yield from self._connection.execute(
                f"SELECT pid, id, text, metadata, segment, ordinal, tokens, {crcs} FROM passages"
            )


class WriteTransaction(ReadTransaction):
    """The one write transaction of an index; it sees what it has written so far."""

    def record_dim(self, dim: int) -> None:
        """Record how many dimensions the index's vectors have, unless it is recorded already."""
        self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('dim', ?)", (str(dim),))

    def fill_text_index(self) -> None:
        """Store the terms of every passage, in place of whatever is stored."""
        fill_text_index(self._connection)

    def record(self, key: str, value: str | None) -> None:
        """Record a fact of the index in ``meta``; ``None`` removes it."""
        if value is None:
            self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def insert_passages(self, rows: Iterable[NewRow]) -> None:
        """Store passages whose ids are all new."""
        self._connection.executemany(
            "INSERT INTO passages (id, text, metadata, segment, ordinal, tokens) VALUES (?, ?, ?, ?, ?, ?)", rows
        )

    def upsert_passages(self, rows: Iterable[NewRow]) -> None:
        """Store passages, in place of those with the same ids."""
        self._connection.executemany(
            "INSERT INTO passages (id, text, metadata, segment, ordinal, tokens) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, "
            "segment = excluded.segment, ordinal = excluded.ordinal, tokens = excluded.tokens",
            rows,
        )

    def replace_metadata(self, rows: Iterable[tuple[str, str]]) -> None:
        """Give stored passages other metadata: pairs of metadata and id."""
        self._connection.executemany("UPDATE passages SET metadata = ? WHERE id = ?", rows)

    def delete_passages(self, ids: Sequence[str]) -> int:
        """Remove the passages with these ids; return how many there were."""
        query = "DELETE FROM passages WHERE id IN (SELECT value FROM json_each(?))"
        return self._connection.execute(query, (json_ids(ids),)).rowcount

    def delete_passages_where(self, condition: Sql | None) -> int:
        """Remove the passages that satisfy a condition of `filters`; return how many there were."""
        return self._with_condition("DELETE FROM passages", condition).rowcount

    def move_passages(self, segment: str, pids: Sequence[int]) -> None:
        """Record that the passages with these catalog numbers are the first, second, ... of a segment."""
        self._connection.executemany(
            "UPDATE passages SET segment = ?, ordinal = ? WHERE pid = ?",
            [(segment, ordinal, pid) for ordinal, pid in enumerate(pids)],
        )

    def insert_segment(self, record: SegmentRecord) -> None:
        """Name a segment."""
        self._connection.execute(
            "INSERT INTO segments (name, passages, tokens, codec, checksums) VALUES (?, ?, ?, ?, ?)",
            (record.name, record.passages, record.tokens, record.codec, json.dumps(record.checksums)),
        )

    def insert_codec(self, record: CodecRecord) -> None:
        """Name a codec; it is the current one from now on."""
        self._connection.execute(
            "INSERT INTO codecs (name, tokens, centroids, step, whole, checksums) VALUES (?, ?, ?, ?, ?, ?)",
            (record.name, record.tokens, record.centroids, record.step, record.whole, json.dumps(record.checksums)),
        )

    def forget_unused(self) -> None:
        """Remove the segments without a passage, and the codecs without a segment but the newest, from the catalog.

        Their names go to the log of folders that may be removed. While a name leads nowhere, by damage, whatever seems
        unused may be what it meant, and stays.
        """
        if not self.unnamed_segments():
            self._forget("segments", "name NOT IN (SELECT segment FROM passages)")
        query = "SELECT 1 FROM segments WHERE codec IS NOT NULL AND codec NOT IN (SELECT name FROM codecs) LIMIT 1"
        if not self._connection.execute(query).fetchone():
            self._forget(
                "codecs",
                "name NOT IN (SELECT codec FROM segments WHERE codec IS NOT NULL) "
                "AND number < (SELECT max(number) FROM codecs)",
            )

    def _forget(self, kind: FolderKind, unused: str) -> None:
        self._connection.execute(f"INSERT OR REPLACE INTO folders SELECT name, 1 FROM {kind} WHERE {unused}")
        self._connection.execute(f"DELETE FROM {kind} WHERE {unused}")

    def ensure_folder_log(self) -> None:
        """Make the log of folders where it is absent: in format 2, and before an import has made an index."""
        self._connection.execute(_FOLDERS_TABLE)

    def update_folder_log(self, gone: Iterable[str], new: Iterable[str]) -> None:
        """Remove from the log the folders that are named now and those that are gone; log `new` ones as unnamed."""
        self.ensure_folder_log()
        for kind in set(FOLDER_KINDS) & table_names(self._connection):
            self._connection.execute(f"DELETE FROM folders WHERE name IN (SELECT name FROM {kind})")
        self._connection.executemany("DELETE FROM folders WHERE name = ?", [(name,) for name in gone])
        self._connection.executemany("INSERT INTO folders VALUES (?, 0)", [(name,) for name in new])


class Catalog:
    """The catalog file of one index: any number of read transactions at once, one write transaction at a time.

    A read transaction sees one commit from its first statement to its last, whatever is written meanwhile. How
    connections follow the file and cross a fork: `Connections`.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only
        self._connections = Connections(path, self._open, read_only=read_only)

    def create(self, meta: dict[str, str], fill: Callable[[WriteTransaction], None] | None = None) -> None:
        """Create the schema in one transaction; an index that stood there is replaced only if all of it succeeds.

        `fill` may name segments, codecs and passages in it. Open readers compare generations, so the count goes on;
        ``index_id`` tells the new index from the one that stood there.
        """
        with self._transaction() as connection:
            before = _last_generation(connection)
            log = _all_folders(connection)
            _drop_everything(connection)
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            create_text_tables(connection)
            connection.executemany("INSERT INTO folders VALUES (?, ?)", log.items())
            rows = {"index_id": uuid.uuid4().hex, **meta, "format": str(FORMAT_VERSION), "generation": str(before)}
            rows[TEXT_RULES] = RULES
            connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            _compute_checksums(connection)
            _watch_rows(connection)
            if fill is not None:
                fill(WriteTransaction(connection, self._path.parent))

    def upgrade(self) -> None:
        """Give a catalog of an older format what this one has, in one transaction; nothing where it is only read."""
        if self._read_only:
            return
        with self.read() as transaction:
            is_old = transaction.meta()["format"] != str(FORMAT_VERSION)
        if is_old:
            with self.write():
                _LOGGER.info("%s becomes an index of format %d", self._path.parent, FORMAT_VERSION)

    def table_names(self) -> set[str]:
        """Return the names of the tables of whatever database stands there; of another program's too."""
        with self._connections.lend() as connection, _translated(self._path, "cannot be read"):
            return table_names(connection)

    @contextlib.contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        """Begin a read transaction, which ends with the block.

        Raises
        ------
        IndexFormatError
            If the file holds anything but the tables of an index, such as triggers and views.
        """
        with self._connections.lend() as connection, _translated(self._path, "cannot be read"):
            connection.execute("BEGIN")
            self._require_schema(connection)
            yield ReadTransaction(connection, self._path.parent)

    @contextlib.contextmanager
    def write(self, *, new_commit: bool = True) -> Iterator[WriteTransaction]:
        """Begin a write transaction, committed with the next generation at the end of the block.

        Whatever is raised inside rolls it back. Without `new_commit` the generation stays: nothing that readers see
        has changed.

        Raises
        ------
        IndexFormatError
            If what the catalog says of itself, of segments or of codecs was damaged: what is written would make that
            look sound.
        """
        with self._transaction(new_commit) as connection:
            self._require_schema(connection)
            transaction = WriteTransaction(connection, self._path.parent)
            # An import logs the folders that it makes before there is an index.
            if "meta" in table_names(connection):
                self._begin(connection, transaction.meta()["format"])
            yield transaction

    def is_past_all_readers(self, patience_ms: int) -> bool:
        """Return whether no reader, in any process, sees a commit older than the last one; waits `patience_ms` at most.

        SQLite's own proof: the write-ahead log can be copied to its end only if every reader reads its end. Readers on
        a read-only medium take no lock; they begin again if a file is gone.
        """
        with self._connections.lend() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
            try:
                busy, in_log, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            except sqlite3.OperationalError:
                # The disk is full, or another program has the file locked: no proof.
                return False
            finally:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        return not busy and in_log == copied

    def reclaim(self) -> None:
        """Free the space of deleted rows in the file system; SQLite does so atomically."""
        with self._connections.lend() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("VACUUM")

    def is_in_place(self) -> bool:
        """Return whether the file that this catalog first opened still stands at its path."""
        return self._connections.is_in_place()

    def require_in_place(self) -> None:
        """Raise unless `is_in_place`; see `Connections.require_in_place`."""
        self._connections.require_in_place()

    def close(self) -> None:
        """Close every connection, those in use when they are done; no new transaction begins."""
        self._connections.close()

    def wait_unused(self, seconds: float) -> None:
        """Wait until no other thread is within a transaction, for at most so many seconds."""
        self._connections.wait_unused(seconds)

    @contextlib.contextmanager
    def _transaction(self, new_commit: bool = True) -> Iterator[Connection]:
        with self._connections.lend() as connection, _translated(self._path, _NOT_WRITTEN, IndexWriteError):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                if "meta" in table_names(connection):
                    if new_commit:
                        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
                    mend_text_index(connection)
                    _write_totals(connection)
                connection.execute("COMMIT")
            finally:
                distrust_schema(connection)

    def _begin(self, connection: Connection, version: str) -> None:
        if version != FORMAT_WITHOUT_CHECKSUMS and (problems := list(_table_problems(connection))):
            raise IndexFormatError(f"{self._path} is damaged: {problems[0]}; nothing was written")
        if version != str(FORMAT_VERSION):
            _upgrade(connection, version)
        _watch_rows(connection)

    def _require_schema(self, connection: Connection) -> None:
        """Raise unless the file holds nothing, or the tables of an index alone; looks again when they have changed."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version != connection.checked_schema:
            _require_schema(connection, self._path)
            connection.checked_schema = version

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
            distrust_schema(connection)
            connection.execute("PRAGMA cell_size_check = ON")
            # In memory, temporary tables need no file, which a full or read-only folder for temporary files would
            # refuse.
            connection.execute("PRAGMA temp_store = MEMORY")
            with _translated(self._path, "cannot be read"):
                # Opens the log too.
                connection.execute("PRAGMA schema_version").fetchone()
                prepare_connection(connection)
            if not self._read_only:
                connection.create_function("content_crc", len(_CONTENT), content_crc, deterministic=True)
                connection.create_function("place_crc", len(_PLACE), place_crc, deterministic=True)
                with _translated(self._path, _NOT_WRITTEN, IndexWriteError):
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


# The schema.


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the catalog's tables, without SQLite's own."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {row[0] for row in connection.execute(query)}


def _schema(connection: sqlite3.Connection) -> Schema:
    query = "SELECT type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_master"
    rows = connection.execute(query).fetchall()
    return frozenset((str(kind), str(name), str(table), plain_sql(str(sql))) for kind, name, table, sql in rows)


@functools.cache
def _expected_schema(version: int) -> Schema:
    """Return what a catalog of this format holds, as SQLite itself writes it down."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        require_fts5(connection)
        connection.executescript(_TABLES)
        without_texts = _schema(connection)
        connection.executescript(TEXT_TABLES)
        newest = _schema(connection)
    if version > 3:
        return newest
    if version == 3:
        return without_texts
    columns = "".join(f",{column} INTEGER" for column in _ADDED_IN_3)
    return frozenset((*row[:3], row[3].replace(columns, "")) for row in without_texts if row[2] != "folders")


def _require_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `IndexFormatError` unless the file holds nothing, or the tables of an index alone."""
    schema, newest = _schema(connection), _expected_schema(FORMAT_VERSION)
    older = [_expected_schema(version) for version in (2, 3)]
    # The tables of a catalog while an import writes its folders.
    folders_alone = frozenset(row for row in newest if row[2] == "folders")
    if schema in (frozenset(), folders_alone, *older, newest):
        return
    require_index_tables(schema, path.parent)
    require_same_meta_table(schema, newest, path.parent)
    row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    require_readable(row and row[0], path.parent)
    raise schema_error(schema, newest, *older, catalog=path)


def _upgrade(connection: sqlite3.Connection, version: str) -> None:
    """Add what an older format lacks, within the caller's transaction; the text index stays empty until it is asked."""
    if version == FORMAT_WITHOUT_CHECKSUMS:
        for column in _ADDED_IN_3:
            connection.execute(f"ALTER TABLE passages ADD COLUMN {column} INTEGER")
        connection.execute(_FOLDERS_TABLE)
        _compute_checksums(connection)
    create_text_tables(connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT_VERSION),))
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('index_id', ?)", (uuid.uuid4().hex,))


def _last_generation(connection: sqlite3.Connection) -> int:
    """Return the number of the last commit of whatever index stands there; 0 where there is none."""
    if "meta" not in table_names(connection):
        return 0
    row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return max(0, whole_number(row[0])) if row else 0


def _all_folders(connection: sqlite3.Connection) -> dict[str, int]:
    """Return all folders that are named or logged and may still exist; 1 for each that a commit has named."""
    tables = table_names(connection)
    log = dict(connection.execute("SELECT name, named FROM folders")) if "folders" in tables else {}
    for kind in set(FOLDER_KINDS) & tables:
        log |= {name: 1 for (name,) in connection.execute(f"SELECT name FROM {kind}")}
    return log


def _drop_everything(connection: sqlite3.Connection) -> None:
    """Remove everything from a catalog, triggers and views first, so that nothing foreign stays."""
    query = (
        "SELECT type, name FROM main.sqlite_master WHERE name <> 'sqlite_sequence' AND type <> 'index' "
        "ORDER BY type = 'table', sql NOT LIKE 'CREATE VIRTUAL%'"
    )
    for kind, name in connection.execute(query).fetchall():
        quoted = str(name).replace('"', '""')
        connection.execute(f'DROP {kind} IF EXISTS main."{quoted}"')


# Checksums.


def _compute_checksums(connection: sqlite3.Connection) -> None:
    """Give every passage its checksums, for a catalog that had none."""
    connection.execute(f"UPDATE passages SET content_crc = {_content()}, place_crc = {_place()}")
    rows, total = _totals(connection)
    _record_totals(connection, {_ROWS: rows, _SUM: total})


def _watch_rows(connection: sqlite3.Connection) -> None:
    """Keep the checksums of every passage that is changed from now on in this transaction."""
    for statement in _WATCH:
        connection.execute(statement)
    watch_texts(connection)


def _write_totals(connection: sqlite3.Connection) -> None:
    """Write the totals of the transaction; after its last change of any table."""
    rows, total = connection.execute("SELECT rows, total FROM row_changes").fetchone()
    if rows or total:
        before = _recorded_totals(connection)
        count = (before[_ROWS] or 0) + rows
        # The sum includes a damaged checksum for ever, unless no rows are left; then it starts again from 0.
        _record_totals(connection, {_ROWS: count, _SUM: (before[_SUM] or 0) + int(total) if count else 0})
    _record_totals(connection, {_TABLES_CRC: tables_crc(connection)})


def _totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many passages there are, and the sum of the checksums that they have."""
    rows, total = connection.execute("SELECT count(*), coalesce(sum(content_crc), 0) FROM passages").fetchone()
    return rows, total


def _table_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a sentence if the small tables are not as the last transaction left them."""
    if _recorded_totals(connection)[_TABLES_CRC] != tables_crc(connection):
        yield "its own facts, or what it says of segments and codecs, are not as they were written"


def _recorded_totals(connection: sqlite3.Connection) -> dict[str, int | None]:
    """Return the totals that ``meta`` holds; ``None`` for what is no whole number."""
    query = "SELECT value FROM meta WHERE key = ? AND value NOT GLOB '*[^0-9]*' AND length(value) BETWEEN 1 AND 18"
    rows = {key: connection.execute(query, (key,)).fetchone() for key in (_ROWS, _SUM, _TABLES_CRC)}
    return {key: int(row[0]) if row else None for key, row in rows.items()}


def _record_totals(connection: sqlite3.Connection, totals: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, str(value)) for key, value in totals.items()],
    )


def tables_crc(connection: sqlite3.Connection) -> int:
    """Return the checksum of all rows of all tables but ``passages`` and its text index, whatever their order."""
    large = f"name = 'passages' OR {IS_TEXT_TABLE}"
    query = f"SELECT name FROM main.sqlite_master WHERE type = 'table' AND NOT ({large}) ORDER BY name"
    crc = 0
    with _any_text(connection):
        for (name,) in connection.execute(query).fetchall():
            where = f"WHERE key <> '{_TABLES_CRC}'" if name == "meta" else ""
            crc = table_crc(name, connection.execute(f"SELECT * FROM main.{name} {where}"), crc)
    return crc


@contextlib.contextmanager
def _any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Have texts that are not UTF-8 come as strings with lone surrogates, which stand for the very bytes."""
    before = connection.text_factory
    connection.text_factory = lambda stored: stored.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = before


# Errors.


def _require_all(rows: int, pids: Sequence[int]) -> None:
    """Raise unless each passage that the index of places names has a row: fewer would be returned."""
    if rows != len(pids):
        raise IndexFormatError(f"the catalog is damaged: it lacks {len(pids) - rows} passages that it has places for")


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
