"""Rules over values that were read from a catalog: formats, facts, columns, checksums.

No SQL stands here; `catalog` reads and writes, and asks these functions whether what it has read is sound.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rerank_integrations.core.token_pooling import MAX_POOL_FACTOR
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError

FORMAT_VERSION = 4
# Format 2 had no checksums in its rows, format 3 no text index; a writer that opens one adds what it lacks.
FORMAT_WITHOUT_CHECKSUMS = "2"
_READABLE = (FORMAT_WITHOUT_CHECKSUMS, "3", str(FORMAT_VERSION))
# The key of `meta` for the pool factor, from format 4 on, and absent where tokens are not pooled. Versions that know
# format 3 alone refuse such an index: they would add vectors that are not pooled.
POOL_FACTOR = "pool_factor"

# The kind, name, table and statement of each object in a database.
Schema: TypeAlias = "frozenset[tuple[str, str, str, str]]"
# Why a file with anything but an index's tables is refused.
_NOT_OURS = "expected the tables of an index and nothing else; it may have been made to do harm, so nothing is read"
# The key of ``meta`` with the share of BM25 in a hybrid search.
BM25_WEIGHT = "bm25_weight"
# Far above any model's; a number in a file is not to ask for all the memory.
_MAX_DIM = 1 << 20


def checked_meta(rows: Mapping[str, str], tables: set[str], path: Path) -> dict[str, str]:
    """Return the rows of ``meta`` after a check that they are an index's own facts, all of them text.

    Raises
    ------
    IndexFormatError
        If one is absent or unusable, or of a format that this version does not read, or a table is absent.
    """
    require_readable(rows.get("format"), path)
    if not tables >= {"segments", "codecs"}:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks tables")
    missing = {"fingerprint", "generation", "model", "nbits"} - set(rows)
    if missing:
        raise IndexFormatError(f"{path} is damaged: its catalog lacks {', '.join(sorted(missing))}")
    for key, value in rows.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise IndexFormatError(f"{path} is damaged: its catalog has {key!r} as {value!r}; expected two texts")
    for key, least, most in (("generation", 0, 1 << 62), ("nbits", 1, 8), ("dim", 1, _MAX_DIM)):
        if key in rows and not least <= whole_number(rows[key]) <= most:
            raise IndexFormatError(f"{path} is damaged: its catalog has {key} as {rows[key]!r}; expected a number")
    _require_pooling(rows, path)
    return dict(rows)


def _require_pooling(rows: Mapping[str, str], path: Path) -> None:
    recorded = rows.get(POOL_FACTOR)
    if recorded is not None and not (
        re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,17})?", recorded) and 1 < float(recorded) <= MAX_POOL_FACTOR
    ):
        raise IndexFormatError(f"{path} is damaged: its catalog has {POOL_FACTOR} as {recorded!r}; expected a number")


def recorded_pool_factor(meta: Mapping[str, str]) -> float:
    """Return by what factor the index's token vectors are pooled; 1 if they are not."""
    return float(meta.get(POOL_FACTOR, 1))


def recorded_dim(meta: Mapping[str, str]) -> int:
    """Return how many dimensions the index's vectors have; 0 before the first passage."""
    return int(meta.get("dim", 0))


def recorded_bm25_weight(meta: Mapping[str, str]) -> float | None:
    """Return the share of BM25 in a hybrid search that the index records; ``None`` for none."""
    if BM25_WEIGHT not in meta:
        return None
    try:
        weight = float(meta[BM25_WEIGHT])
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1:
        raise IndexFormatError(f"the catalog is damaged: its {BM25_WEIGHT} is {meta[BM25_WEIGHT]!r}")
    return weight


def require_readable(version: object, path: Path) -> None:
    """Raise `IndexFormatError` unless this version reads an index of format `version`."""
    if version not in _READABLE:
        raise IndexFormatError(f"{path} is an index of format {version!r}; this version reads {', '.join(_READABLE)}")


def require_index_tables(schema: Schema, path: Path) -> None:
    """Raise `IndexFormatError` unless a database that holds something has the tables by which an index is known."""
    tables = {name for kind, name, _, _ in schema if kind == "table"}
    if not tables >= {"meta", "passages"}:
        raise IndexFormatError(f"{path} is not an index: its catalog holds no tables of one")


def require_same_meta_table(schema: Schema, expected: Schema, path: Path) -> None:
    """Raise `IndexFormatError` unless the table of facts is an index's, so that its format may be read."""
    if {row for row in schema if row[1] == "meta"} != {row for row in expected if row[1] == "meta"}:
        raise IndexFormatError(f"{path} is not an index: its catalog's table 'meta' is another")


def schema_error(schema: Schema, *expected: Schema, catalog: Path) -> IndexFormatError:
    """Return the error for a readable index whose schema is none of the expected ones."""
    foreign = sorted((kind, name) for kind, name, _, _ in schema.difference(*expected))
    if foreign:
        return IndexFormatError(f"{catalog} is refused: it holds the {foreign[0][0]} {foreign[0][1]!r}; {_NOT_OURS}")
    return IndexFormatError(f"{catalog.parent} is damaged: its catalog lacks tables")


def plain_sql(statement: str) -> str:
    """Return a statement without the white space that means nothing; a column that was added comes after some."""
    return re.sub(r" ?([(),]) ?", r"\1", re.sub(r"\s+", " ", statement))


def whole_number(value: object) -> int:
    """Return a whole number that is written in digits; -1 for anything else."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else -1


def stored_passage(passage_id: object, text: object, metadata: object) -> Passage:
    """Return a passage of these columns; see `stored_columns`."""
    return Passage(*stored_columns(passage_id, text, metadata))


def stored_columns(passage_id: object, text: object, metadata: object) -> tuple[str, str, dict[str, Any]]:
    """Return id, text and metadata of a passage from its columns; the last is JSON, or an object read from it.

    Raises
    ------
    IndexFormatError
        If they are not what was stored.
    """
    try:
        parsed = json.loads(metadata) if isinstance(metadata, str) else metadata
    except (ValueError, RecursionError) as error:
        raise IndexFormatError(f"the metadata of passage {passage_id!r} is damaged: {error}") from error
    if not isinstance(parsed, dict):
        raise IndexFormatError(f"the metadata of passage {passage_id!r} is damaged: expected a JSON object")
    if not isinstance(passage_id, str) or not passage_id:
        raise IndexFormatError(f"the id {passage_id!r} of a passage is damaged: expected a text")
    if not isinstance(text, str):
        raise IndexFormatError(f"the text of passage {passage_id!r} is damaged: expected a text")
    return passage_id, text, parsed


def content_crc(pid: object, passage_id: object, text: object, metadata: object) -> int:
    """Return the CRC-32 of a passage as its user gave it; -1 where a column is not text."""
    if not (isinstance(passage_id, str) and isinstance(text, str) and isinstance(metadata, str)):
        return -1
    # With the lengths, so that no two passages are written alike.
    written = f"{pid!r} {len(passage_id)} {len(text)} {passage_id}{text}{metadata}"
    return zlib.crc32(written.encode("utf-8", "surrogateescape"))


def place_crc(pid: object, segment: object, ordinal: object, tokens: object) -> int:
    """Return the CRC-32 of where a passage's vectors are."""
    return zlib.crc32(f"{pid!r} {segment!r} {ordinal!r} {tokens!r}".encode("utf-8", "backslashreplace"))


def table_crc(name: str, rows: Iterable[tuple[object, ...]], before: int) -> int:
    """Return the CRC-32 of a table's rows, whatever their order, continued from that of the tables `before`."""
    return zlib.crc32(_encoded((name, *sorted(_encoded(row) for row in rows))), before)


def _encoded(values: tuple[object, ...]) -> bytes:
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
