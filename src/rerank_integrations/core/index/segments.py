"""Segments: immutable folders of arrays that hold the token vectors of passages, as float16 or compressed."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.arrays import Checksums, checksum_problems, map_array
from rerank_integrations.core.index.plaid.rules import code_problem, segment_problem
from rerank_integrations.core.index.segment_folders import SEGMENTS, Folders
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError

if TYPE_CHECKING:
    # Its module imports numba, which an exact index has no use for.
    from rerank_integrations.core.index.plaid.codec import Codec

FOLDER = SEGMENTS
_FLOAT_ARRAYS = frozenset({"lengths", "tokens"})
_CODE_ARRAYS = frozenset({"lengths", "codes", "residuals", "scales"})
_LISTED_ARRAYS = _CODE_ARRAYS | {"list_starts", "listed"}


@dataclass(frozen=True)
class SegmentRecord:
    """What the catalog says of a segment; `codec` is ``None`` for float16 vectors."""

    name: str
    passages: int
    tokens: int
    codec: str | None
    checksums: Checksums


@dataclass(frozen=True, eq=False)
class FloatSegment:
    """An open segment of float16 vectors.

    Parameters
    ----------
    tokens
        Memory-mapped float16, *Shape:* (tokens, dim).
    offsets
        Int64, *Shape:* (passages + 1,); passage ``i`` has the tokens ``offsets[i]:offsets[i + 1]``.
    """

    name: str
    tokens: NDArray[np.float16]
    offsets: NDArray[np.int64]

    def vectors(self, ordinal: int) -> Floats:
        """Return one passage's token vectors, float32, *Shape:* (tokens, dim)."""
        start, end = self.offsets[ordinal], self.offsets[ordinal + 1]
        return np.asarray(self.tokens[start:end], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class PlaidSegment:
    """An open segment of compressed vectors: memory-mapped arrays, see `plaid.codec.Codes`.

    Parameters
    ----------
    codec
        The name of the codec that made it.
    offsets
        As of a `FloatSegment`.
    list_starts, listed
        Inverted lists: centroid ``c`` occurs in the passages ``listed[list_starts[c]:list_starts[c + 1]]``. ``None``
        for a small segment, of which every passage is a candidate.
    """

    name: str
    codec: str
    codes: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    scales: NDArray[Any]
    offsets: NDArray[np.int64]
    list_starts: NDArray[np.int32] | None
    listed: NDArray[Any] | None


Segment = FloatSegment | PlaidSegment


def write_floats(folders: Folders, vectors: Sequence[NDArray[Any]], dim: int) -> SegmentRecord:
    """Write a segment of float16 vectors: one array of *Shape:* (tokens, dim) a passage.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    lengths = np.array([len(passage) for passage in vectors], dtype=np.int32)
    tokens = np.concatenate([np.empty((0, dim), np.float16), *(p.astype(np.float16) for p in vectors)])
    return write_segment(folders, {"tokens": tokens}, lengths, None)


def write_segment(
    folders: Folders, arrays: dict[str, NDArray[Any]], lengths: NDArray[np.int32], codec: str | None
) -> SegmentRecord:
    """Write a segment of these arrays; see `Folders.write`."""
    name, checksums = folders.write(FOLDER, {**arrays, "lengths": lengths})
    return SegmentRecord(name, len(lengths), int(lengths.sum(dtype=np.int64)), codec, checksums)


def open_segment(index_path: Path, record: SegmentRecord) -> Segment:
    """Map a segment; reads its lengths alone.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    IndexFormatError
        If its files are not what the catalog says.
    IndexReadError
        If the operating system refuses them.
    """
    folder = index_path / FOLDER / record.name
    lengths = map_array(folder / "lengths.npy", np.int32, (record.passages,))
    if int(lengths.sum(dtype=np.int64)) != record.tokens or (lengths < 0).any():
        raise IndexFormatError(f"{folder / 'lengths.npy'} is damaged: it does not sum to {record.tokens} tokens")
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if record.codec is None:
        return FloatSegment(record.name, map_array(folder / "tokens.npy", np.float16, (record.tokens, None)), offsets)
    listed = "listed" in record.checksums
    return PlaidSegment(
        record.name,
        record.codec,
        map_array(folder / "codes.npy", np.uint16, (record.tokens,)),
        map_array(folder / "residuals.npy", np.uint8, (record.tokens, None)),
        map_array(folder / "scales.npy", None, (record.tokens,)),
        offsets,
        # Copied, so that what has been checked is what the search loops read.
        np.array(map_array(folder / "list_starts.npy", np.int32, (None,))) if listed else None,
        map_array(folder / "listed.npy", None, (None,)) if listed else None,
    )


def require_fitting(index_path: Path, segment: Segment, codec: Codec | None, dim: int) -> None:
    """Raise unless a segment holds vectors of `dim` dimensions, as its codec (``None`` for float16 ones) makes them.

    Raises
    ------
    IndexFormatError
        If it does not; the search loops do not look.
    """
    problem = None
    if isinstance(segment, PlaidSegment):
        problem = "its codec is not there" if codec is None else segment_problem(segment, codec)
    width = codec.rotation.shape[0] if codec else segment.tokens.shape[1] if isinstance(segment, FloatSegment) else dim
    if width != dim:
        problem = f"its vectors have {width} dimensions; expected {dim}"
    if problem:
        raise IndexFormatError(f"segment {index_path / FOLDER / segment.name} is damaged: {problem}")


def check_segment(index_path: Path, record: SegmentRecord, codec: Codec | None, dim: int) -> Iterator[str]:
    """Yield what is wrong with a segment's files: sizes, checksums, vectors that are not finite, codes of nothing."""
    folder = index_path / FOLDER / record.name
    try:
        segment = open_segment(index_path, record)
        problems = list(checksum_problems(folder, record.checksums))
        require_fitting(index_path, segment, codec, dim)
    except FileNotFoundError as error:
        yield f"segment {folder} is missing: {error}"
        return
    except IndexFormatError as error:
        yield str(error)
        return
    yield from problems
    if isinstance(segment, FloatSegment):
        for start in range(0, len(segment.tokens), 1 << 16):
            if not np.isfinite(segment.tokens[start : start + (1 << 16)]).all():
                yield f"segment {folder} holds vectors that are not finite numbers"
                return
    elif codec is not None and (problem := code_problem(segment, codec)):
        yield f"segment {folder}: {problem}"


def segment_records(connection: sqlite3.Connection) -> list[SegmentRecord]:
    """Return what the catalog says of each segment, in the order of their making.

    Raises
    ------
    IndexFormatError
        If what it says of one is damaged.
    """
    query = "SELECT name, passages, tokens, codec, checksums FROM segments ORDER BY number"
    return [_record(*row) for row in connection.execute(query)]


def is_folder_name(name: object) -> bool:
    """Return whether this is a name as `write_arrays` makes them; any other could lead out of the index's folder."""
    return isinstance(name, str) and re.fullmatch("[0-9a-f]{32}", name) is not None


def parsed_checksums(name: str, stored: object, *wanted: frozenset[str]) -> Checksums:
    """Return the checksums of a folder's arrays, which must be one of the sets `wanted`.

    Raises
    ------
    IndexFormatError
        If they are not.
    """
    try:
        found = json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.keys() not in wanted:
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are damaged")
    if not all(type(value) is int and 0 <= value < 1 << 32 for value in found.values()):
        raise IndexFormatError(f"the checksums that the catalog has for the arrays of {name} are no CRC-32")
    return found


def _record(name: Any, passages: Any, tokens: Any, codec: Any, checksums: Any) -> SegmentRecord:
    numbers = type(passages) is int and type(tokens) is int and 0 <= passages < 1 << 31 and 0 <= tokens < 1 << 48
    if not is_folder_name(name) or not numbers or not (codec is None or is_folder_name(codec)):
        raise IndexFormatError(f"what the catalog says of the segment {name!r} is damaged")
    wanted = (_FLOAT_ARRAYS,) if codec is None else (_CODE_ARRAYS, _LISTED_ARRAYS)
    return SegmentRecord(name, passages, tokens, codec, parsed_checksums(name, checksums, *wanted))


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
