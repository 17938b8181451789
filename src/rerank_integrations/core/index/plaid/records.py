"""A codec on disk: its arrays in a folder, its few numbers in the catalog."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.arrays import Checksums, checksum_problems, map_array
from rerank_integrations.core.index.plaid.codec import Codec, Codes
from rerank_integrations.core.index.plaid.rules import codec_problem
from rerank_integrations.core.index.segment_folders import CODECS, Folders
from rerank_integrations.core.index.segments import SegmentRecord, is_folder_name, parsed_checksums, write_segment
from rerank_integrations.errors import IndexFormatError

# Fewer tokens are scanned faster than their lists are read.
_LISTED_FROM = 1 << 16


def write_compressed(folders: Folders, codec: Codec, codes: Codes, lengths: NDArray[np.int32]) -> SegmentRecord:
    """Write a segment of compressed passages, with the inverted lists of a large one.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    arrays: dict[str, NDArray[Any]] = {
        "codes": codes.centroids,
        "residuals": codes.residuals,
        "scales": codes.scales,
    }
    if len(codes.centroids) >= _LISTED_FROM:
        arrays["list_starts"], arrays["listed"] = inverted_lists(codes.centroids, lengths, len(codec.centroids))
    return write_segment(folders, arrays, lengths, codec.name)


def inverted_lists(
    codes: NDArray[np.uint16], lengths: NDArray[np.int32], centroids: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return, centroid after centroid, the passages in which it occurs.

    Returns
    -------
    tuple
        Starts, int32, *Shape:* (centroids + 1,), and ordinals, uint16 if they fit, else uint32.
    """
    owners = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    # One sort of (centroid, passage) pairs, each kept once.
    pairs = np.unique(codes.astype(np.int64) * len(lengths) + owners)
    starts = np.searchsorted(pairs, np.arange(centroids + 1, dtype=np.int64) * len(lengths)).astype(np.int32)
    small = len(lengths) <= np.iinfo(np.uint16).max
    return starts, (pairs % len(lengths)).astype(np.uint16 if small else np.uint32)


FOLDER = CODECS
_ARRAYS = frozenset({"centroids", "codebook", "rotation"})


@dataclass(frozen=True)
class CodecRecord:
    """What the catalog says of a codec."""

    name: str
    tokens: int
    centroids: int
    step: float
    whole: bool
    checksums: Checksums


def write_codec(folders: Folders, codec: Codec) -> tuple[Codec, CodecRecord]:
    """Write a codec's arrays; return it with its name, and its record.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    arrays: dict[str, NDArray[Any]] = {
        "centroids": codec.centroids.astype(np.float16),
        "codebook": codec.codebook,
        "rotation": codec.rotation,
    }
    name, checksums = folders.write(FOLDER, arrays)
    return dataclasses.replace(codec, name=name), CodecRecord(
        name, codec.tokens, len(codec.centroids), codec.step, codec.whole, checksums
    )


def open_codec(index_path: Path, record: CodecRecord) -> Codec:
    """Read a codec.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    IndexFormatError
        If its files are not what the catalog says.
    """
    folder = index_path / FOLDER / record.name
    rotation = map_array(folder / "rotation.npy", np.float32, (None, None))
    centroids = map_array(folder / "centroids.npy", np.float16, (record.centroids, rotation.shape[1]))
    codebook = map_array(folder / "codebook.npy", np.float32, (256, None))
    # Once for all: they are small, and every search reads them.
    codec = Codec(
        record.name,
        np.array(centroids, dtype=np.float32),
        np.array(codebook),
        np.array(rotation),
        record.step,
        record.whole,
        record.tokens,
    )
    if problem := codec_problem(codec):
        raise IndexFormatError(f"{folder} is damaged: {problem}")
    return codec


def check_codec(index_path: Path, record: CodecRecord) -> Iterator[str]:
    """Yield what is wrong with a codec's files."""
    try:
        open_codec(index_path, record)
        yield from checksum_problems(index_path / FOLDER / record.name, record.checksums)
    except (FileNotFoundError, IndexFormatError) as error:
        yield f"codec {record.name}: {error}"


def codec_records(connection: sqlite3.Connection) -> list[CodecRecord]:
    """Return the codecs that the catalog names, the newest last.

    Raises
    ------
    IndexFormatError
        If what it says of one is damaged.
    """
    query = "SELECT name, tokens, centroids, step, whole, checksums FROM codecs ORDER BY number"
    return [_record(*row) for row in connection.execute(query)]


def _record(name: Any, tokens: Any, centroids: Any, step: Any, whole: Any, checksums: Any) -> CodecRecord:
    numbers = type(tokens) is int and type(centroids) is int and type(step) is float and whole in (0, 1)
    if not is_folder_name(name) or not numbers or tokens < 0:
        raise IndexFormatError(f"what the catalog says of the codec {name!r} is damaged")
    return CodecRecord(name, tokens, centroids, step, bool(whole), parsed_checksums(name, checksums, _ARRAYS))


def insert_codec(connection: sqlite3.Connection, record: CodecRecord) -> None:
    """Name a codec in the catalog; it is the current one from now."""
    connection.execute(
        "INSERT INTO codecs (name, tokens, centroids, step, whole, checksums) VALUES (?, ?, ?, ?, ?, ?)",
        (record.name, record.tokens, record.centroids, record.step, record.whole, json.dumps(record.checksums)),
    )
