"""Checksums over what the catalog holds, so that a changed byte in a text, a row or a setting is found.

The writing connection keeps them by itself: triggers of its own, which are no part of the file, see every change of a
passage, whoever makes it, and `settle` writes the totals at the end of the transaction. So they cost a few microseconds
per changed row, and no writer can forget them.

A row of ``passages`` has two: `content_crc` over what the user gave, and `place_crc` over where its vectors are. A row
that only moves keeps the first, so that moving does not make a damaged text look sound.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

_CONTENT = ("pid", "id", "text", "metadata")
_PLACE = ("pid", "segment", "ordinal", "tokens")

# Keys of `meta`: how many passages there are, the sum of their `content_crc`, and the checksum of the other tables.
_ROWS, _SUM, _TABLES = "passages", "passages_crc", "tables_crc"


def _content(row: str = "") -> str:
    return f"content_crc({', '.join(row + column for column in _CONTENT)})"


def _place(row: str = "") -> str:
    return f"place_crc({', '.join(row + column for column in _PLACE)})"


_STORED = "(SELECT content_crc FROM passages WHERE pid = new.pid)"

# Where all of a row was replaced, its text is another one, and what it was before does not matter. Where it only moved,
# a place that was damaged keeps the checksum that tells so.
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


def content_crc(pid: object, passage_id: object, text: object, metadata: object) -> int:
    """Return the CRC-32 of what the user gave of a passage; -1 where that is not text."""
    if not (isinstance(passage_id, str) and isinstance(text, str) and isinstance(metadata, str)):
        return -1
    # With the lengths, so that no two passages are written alike.
    written = f"{pid!r} {len(passage_id)} {len(text)} {passage_id}{text}{metadata}"
    return zlib.crc32(written.encode("utf-8", "surrogateescape"))


def place_crc(pid: object, segment: object, ordinal: object, tokens: object) -> int:
    """Return the CRC-32 of where a passage's vectors are."""
    return zlib.crc32(f"{pid!r} {segment!r} {ordinal!r} {tokens!r}".encode("utf-8", "backslashreplace"))


def prepare(connection: sqlite3.Connection) -> None:
    """Make ready a connection that is going to write."""
    connection.create_function("content_crc", len(_CONTENT), content_crc, deterministic=True)
    connection.create_function("place_crc", len(_PLACE), place_crc, deterministic=True)
    # What is noted in a transaction needs no file, which a full or read-only folder for temporary files would refuse.
    connection.execute("PRAGMA temp_store = MEMORY")


def watch(connection: sqlite3.Connection) -> None:
    """Keep the checksums of every passage that is changed from now on in this transaction."""
    for statement in _WATCH:
        connection.execute(statement)


def settle(connection: sqlite3.Connection) -> None:
    """Write the totals of the transaction; after its last change of any table."""
    rows, total = connection.execute("SELECT rows, total FROM row_changes").fetchone()
    if rows or total:
        before = recorded(connection)
        count = (before[_ROWS] or 0) + rows
        # A checksum that was damaged by itself is in the sum for ever; without rows there is nothing left of it.
        _record(connection, {_ROWS: count, _SUM: (before[_SUM] or 0) + int(total) if count else 0})
    _record(connection, {_TABLES: tables_crc(connection)})


def fill(connection: sqlite3.Connection) -> None:
    """Give every passage its checksums, for a catalog that had none."""
    connection.execute(f"UPDATE passages SET content_crc = {_content()}, place_crc = {_place()}")
    rows, total = totals(connection)
    _record(connection, {_ROWS: rows, _SUM: total})


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many passages there are, and the sum of the checksums that they have."""
    rows, total = connection.execute("SELECT count(*), coalesce(sum(content_crc), 0) FROM passages").fetchone()
    return rows, total


def table_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a sentence if the small tables are not as the last transaction left them."""
    if recorded(connection)[_TABLES] != tables_crc(connection):
        yield "its own facts, or what it says of segments and codecs, are not as they were written"


def total_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a sentence if passages were added or removed by anything but this package."""
    known = recorded(connection)
    if totals(connection) != (known[_ROWS], known[_SUM]):
        yield f"the checksums of its passages do not add up to those of the {known[_ROWS]} passages that were written"


def recorded(connection: sqlite3.Connection) -> dict[str, int | None]:
    """Return the totals that ``meta`` holds; ``None`` for what is no whole number."""
    query = "SELECT value FROM meta WHERE key = ? AND value NOT GLOB '*[^0-9]*' AND length(value) BETWEEN 1 AND 18"
    rows = {key: connection.execute(query, (key,)).fetchone() for key in (_ROWS, _SUM, _TABLES)}
    return {key: int(row[0]) if row else None for key, row in rows.items()}


def tables_crc(connection: sqlite3.Connection) -> int:
    """Return the checksum of all rows of all tables but ``passages``, whatever their order."""
    query = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name <> 'passages' ORDER BY name"
    crc = 0
    with any_text(connection):
        for (name,) in connection.execute(query).fetchall():
            where = f"WHERE key <> '{_TABLES}'" if name == "meta" else ""
            rows = sorted(_encoded(row) for row in connection.execute(f"SELECT * FROM main.{name} {where}"))
            crc = zlib.crc32(_encoded((name, *rows)), crc)
    return crc


@contextlib.contextmanager
def any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Have texts that are not UTF-8 come as strings with lone surrogates, which stand for the very bytes."""
    before = connection.text_factory
    connection.text_factory = lambda stored: stored.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = before


def _record(connection: sqlite3.Connection, values: dict[str, int]) -> None:
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, str(value)) for key, value in values.items()],
    )


def _encoded(values: tuple[Any, ...]) -> bytes:
    parts = []
    for value in values:
        if isinstance(value, str):
            stored = value.encode("utf-8", "surrogateescape")
            parts += [b"t%d:" % len(stored), stored]
        elif isinstance(value, bytes):
            parts += [b"b%d:" % len(value), value]
        else:
            parts.append(b"n%b;" % repr(value).encode())
    return b"".join(parts)
