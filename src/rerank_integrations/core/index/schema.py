"""The schema of a catalog: its tables and nothing else, the facts in `meta`, the types of its rows; older formats."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sqlite3
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_integrations.core.index import row_checksums
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError

FORMAT_VERSION = 3
# Format 2 had no checksums in its rows; a writer that opens one adds them.
_READABLE = ("2", "3")
TABLES = """
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
        if key in meta and not least <= whole_number(meta[key]) <= most:
            raise IndexFormatError(f"{path} is damaged: its catalog has {key} as {meta[key]!r}; expected a number")
    return meta


def recorded_dim(meta: Mapping[str, str]) -> int:
    """Return how many dimensions the index's vectors have; 0 before the first passage."""
    return int(meta.get("dim", 0))


def stored_passage(passage_id: Any, text: Any, metadata: Any) -> Passage:
    """Return a passage of these columns; see `stored_columns`."""
    return Passage(*stored_columns(passage_id, text, metadata))


def stored_columns(passage_id: Any, text: Any, metadata: Any) -> tuple[str, str, dict[str, Any]]:
    """Return id, text and metadata of a passage from its columns, the last of them JSON or what is made of it.

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
    return passage_id, text, found


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
        connection.executescript(TABLES)
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


def require_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `IndexFormatError` unless the file holds nothing, or the tables of an index alone."""
    found = _schema(connection)
    if found not in (frozenset(), _folders_alone(), _expected(2), _expected(3)):
        _refuse(connection, found, path)


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


def upgrade(connection: sqlite3.Connection) -> None:
    """Add what format 2 lacks, within the caller's transaction."""
    for column in _ADDED_IN_3:
        connection.execute(f"ALTER TABLE passages ADD COLUMN {column} INTEGER")
    connection.execute(FOLDERS_TABLE)
    row_checksums.fill(connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT_VERSION),))
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('index_id', ?)", (uuid.uuid4().hex,))


def last_generation(connection: sqlite3.Connection) -> int:
    """Return the number of the last commit of whatever index stands there; 0 where there is none."""
    if "meta" not in table_names(connection):
        return 0
    row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return max(0, whole_number(row[0])) if row else 0


def folder_log(connection: sqlite3.Connection) -> dict[str, int]:
    """Return all folders that the catalog has ever told of and that may still be there, and whether it named them."""
    tables = table_names(connection)
    log = dict(connection.execute("SELECT name, named FROM folders")) if "folders" in tables else {}
    for table in {"segments", "codecs"} & tables:
        log |= {name: 1 for (name,) in connection.execute(f"SELECT name FROM {table}")}
    return log


def drop_everything(connection: sqlite3.Connection) -> None:
    """Take all off a catalog, triggers and views first: of what somebody put there nothing is to stay."""
    query = (
        "SELECT type, name FROM main.sqlite_master WHERE name <> 'sqlite_sequence' AND type <> 'index' "
        "ORDER BY type = 'table'"
    )
    for kind, name in connection.execute(query).fetchall():
        quoted = str(name).replace('"', '""')
        connection.execute(f'DROP {kind} IF EXISTS main."{quoted}"')


def whole_number(value: Any) -> int:
    """Return a whole number that is written in digits; -1 for anything else."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else -1
