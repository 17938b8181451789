"""An index of format 2, as the previous version wrote it: a catalog without checksums of rows."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

FORMAT_2 = """
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


def as_format_2(path: Path) -> Path:
    """Rewrite the catalog as the previous version wrote it."""
    old = path / "old.sqlite"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FORMAT_2)
        connection.execute("ATTACH ? AS new", (str(path / "catalog.sqlite"),))
        for table, columns in (("meta", "*"), ("codecs", "*"), ("segments", "*")):
            connection.execute(f"INSERT INTO {table} SELECT {columns} FROM new.{table}")
        connection.execute(
            "INSERT INTO passages SELECT pid, id, text, metadata, segment, ordinal, tokens FROM new.passages"
        )
        connection.execute(
            "DELETE FROM meta WHERE key IN ('index_id', 'passages', 'passages_crc', 'tables_crc', 'text_index')"
        )
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
        connection.commit()
    old.replace(path / "catalog.sqlite")
    return path
