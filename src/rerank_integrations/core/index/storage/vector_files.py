"""Segments and codecs on disk: immutable folders of arrays, written, opened and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.storage.array_rules import code_problem, codec_problem, segment_problem
from rerank_integrations.core.index.storage.arrays import checksum_problems, map_array
from rerank_integrations.core.index.storage.codecs import Codec, Codes
from rerank_integrations.core.index.storage.records import CodecRecord, SegmentRecord
from rerank_integrations.core.index.storage.segment_folders import CODECS, SEGMENTS, Folders
from rerank_integrations.core.index.storage.segments import FloatSegment, PlaidSegment, Segment
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError

# Fewer tokens are scanned faster than their lists are read.
_MIN_LISTED_TOKENS = 1 << 16


def write_floats(folders: Folders, vectors: Sequence[Floats], dim: int) -> SegmentRecord:
    """Write a segment of float16 vectors from one array of *Shape:* (tokens, dim) per passage.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    lengths = np.array([len(passage) for passage in vectors], dtype=np.int32)
    tokens = np.concatenate([np.empty((0, dim), np.float16), *(p.astype(np.float16) for p in vectors)])
    return write_segment(folders, {"tokens": tokens}, lengths, None)


def write_segment(
    folders: Folders, arrays: Mapping[str, NDArray[np.generic]], lengths: NDArray[np.int32], codec: str | None
) -> SegmentRecord:
    """Write a segment of these arrays; see `Folders.write`."""
    name, checksums = folders.write(SEGMENTS, {**arrays, "lengths": lengths})
    return SegmentRecord(name, len(lengths), int(lengths.sum(dtype=np.int64)), codec, checksums)


def open_segment(index_path: Path, record: SegmentRecord) -> Segment:
    """Map a segment; only its lengths are read.

    Raises
    ------
    FileNotFoundError
        If the folder is gone.
    IndexFormatError
        If its files are not what the catalog says.
    IndexReadError
        If the operating system refuses them.
    """
    folder = index_path / SEGMENTS / record.name
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
        # Copied, so that the search loops read the very numbers that were checked.
        np.array(map_array(folder / "list_starts.npy", np.int32, (None,))) if listed else None,
        map_array(folder / "listed.npy", None, (None,)) if listed else None,
    )


def write_compressed(folders: Folders, codec: Codec, codes: Codes, lengths: NDArray[np.int32]) -> SegmentRecord:
    """Write a segment of compressed passages, with the inverted lists of a large one.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "codes": codes.centroids,
        "residuals": codes.residuals,
        "scales": codes.scales,
    }
    if len(codes.centroids) >= _MIN_LISTED_TOKENS:
        arrays["list_starts"], arrays["listed"] = inverted_lists(codes.centroids, lengths, len(codec.centroids))
    return write_segment(folders, arrays, lengths, codec.name)


def inverted_lists(
    codes: NDArray[np.uint16], lengths: NDArray[np.int32], centroids: int
) -> tuple[NDArray[np.int32], NDArray[np.uint16 | np.uint32]]:
    """Return the passages in which each centroid occurs, centroid after centroid.

    Returns
    -------
    tuple
        Starts, int32, *Shape:* (centroids + 1,), and ordinals, uint16 if they fit, else uint32.
    """
    owners = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    # One sort of (centroid, passage) pairs, without repetition.
    pairs = np.unique(codes.astype(np.int64) * len(lengths) + owners)
    starts = np.searchsorted(pairs, np.arange(centroids + 1, dtype=np.int64) * len(lengths)).astype(np.int32)
    small = len(lengths) <= np.iinfo(np.uint16).max
    return starts, (pairs % len(lengths)).astype(np.uint16 if small else np.uint32)


def require_fitting(index_path: Path, segment: Segment, codec: Codec | None, dim: int) -> None:
    """Raise unless a segment holds vectors of `dim` dimensions, as its codec makes them (``None`` for float16 ones).

    Raises
    ------
    IndexFormatError
        If it does not. The search loops do not check.
    """
    problem = None
    if isinstance(segment, PlaidSegment):
        problem = "its codec is not there" if codec is None else segment_problem(segment, codec)
    width = codec.rotation.shape[0] if codec else segment.tokens.shape[1] if isinstance(segment, FloatSegment) else dim
    if width != dim:
        problem = f"its vectors have {width} dimensions; expected {dim}"
    if problem:
        raise IndexFormatError(f"segment {index_path / SEGMENTS / segment.name} is damaged: {problem}")


def check_segment(index_path: Path, record: SegmentRecord, codec: Codec | None, dim: int) -> Iterator[str]:
    """Yield a sentence for each fault of a segment: sizes, checksums, vectors that are not finite, codes of nothing."""
    folder = index_path / SEGMENTS / record.name
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


def write_codec(folders: Folders, codec: Codec) -> tuple[Codec, CodecRecord]:
    """Write a codec's arrays; return the codec with its name, and its record.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "centroids": codec.centroids.astype(np.float16),
        "codebook": codec.codebook,
        "rotation": codec.rotation,
    }
    name, checksums = folders.write(CODECS, arrays)
    return dataclasses.replace(codec, name=name), CodecRecord(
        name, codec.tokens, len(codec.centroids), codec.step, codec.whole, checksums
    )


def open_codec(index_path: Path, record: CodecRecord) -> Codec:
    """Read a codec.

    Raises
    ------
    FileNotFoundError
        If the folder is gone.
    IndexFormatError
        If its files are not what the catalog says.
    """
    folder = index_path / CODECS / record.name
    rotation = map_array(folder / "rotation.npy", np.float32, (None, None))
    centroids = map_array(folder / "centroids.npy", np.float16, (record.centroids, rotation.shape[1]))
    codebook = map_array(folder / "codebook.npy", np.float32, (256, None))
    # Copied into memory: they are small, and every search reads them.
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
    """Yield a sentence for each fault of a codec's files."""
    try:
        open_codec(index_path, record)
        yield from checksum_problems(index_path / CODECS / record.name, record.checksums)
    except (FileNotFoundError, IndexFormatError) as error:
        yield f"codec {record.name}: {error}"
