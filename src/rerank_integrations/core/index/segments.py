"""Segments: immutable folders of ``.npy`` files that hold the token vectors of consecutive passages."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError, IndexWriteError

FOLDER = "segments"
_TOKENS = "tokens.npy"
_LENGTHS = "lengths.npy"


@dataclass(frozen=True)
class SegmentRecord:
    """What the catalog says of a segment; checksums are CRC-32 of the whole files."""

    name: str
    passages: int
    tokens: int
    tokens_crc: int
    lengths_crc: int


@dataclass(frozen=True)
class Segment:
    """An open segment.

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


def write_segment(index_path: Path, vectors: Sequence[NDArray[Any]], dim: int) -> SegmentRecord:
    """Write and sync a segment; it is part of the index once the catalog names it.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    name = uuid.uuid4().hex
    final = index_path / FOLDER / name
    temporary = final.with_name(name + ".tmp")
    lengths = np.array([len(passage) for passage in vectors], dtype=np.int32)
    tokens = np.concatenate([np.empty((0, dim), np.float16), *(p.astype(np.float16) for p in vectors)])
    try:
        temporary.mkdir(parents=True)
        tokens_crc = _write_array(temporary / _TOKENS, tokens)
        lengths_crc = _write_array(temporary / _LENGTHS, lengths)
        _sync_folder(temporary)
        temporary.rename(final)
        _sync_folder(final.parent)
        _sync_folder(index_path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        raise IndexWriteError(
            f"cannot write {len(tokens)} tokens to {final}: {error}; the last commit stands"
        ) from error
    return SegmentRecord(name, len(lengths), len(tokens), tokens_crc, lengths_crc)


def open_segment(index_path: Path, record: SegmentRecord) -> Segment:
    """Map a segment; reads its lengths, not its tokens.

    Raises
    ------
    FileNotFoundError
        If it is gone: another process has compacted the index.
    IndexFormatError
        If its files are not what the catalog says.
    """
    folder = index_path / FOLDER / record.name
    tokens = _load(folder / _TOKENS, np.float16, 2, record.tokens)
    lengths = _load(folder / _LENGTHS, np.int32, 1, record.passages)
    if int(lengths.sum(dtype=np.int64)) != record.tokens or (lengths < 0).any():
        raise IndexFormatError(f"{folder / _LENGTHS} is damaged: the lengths do not sum to {record.tokens} tokens")
    return Segment(record.name, tokens, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def check_segment(index_path: Path, record: SegmentRecord) -> Iterator[str]:
    """Yield what is wrong with a segment's files: sizes, checksums, vectors that are not finite."""
    folder = index_path / FOLDER / record.name
    try:
        segment = open_segment(index_path, record)
        found_crcs = {filename: _file_crc(folder / filename) for filename in (_TOKENS, _LENGTHS)}
    except OSError as error:
        yield f"segment {folder} is missing or cannot be read: {error}"
        return
    except IndexFormatError as error:
        yield str(error)
        return
    for filename, expected in ((_TOKENS, record.tokens_crc), (_LENGTHS, record.lengths_crc)):
        found = found_crcs[filename]
        if found != expected:
            yield f"{folder / filename} has the checksum {found:08x}; expected {expected:08x}"
    for start in range(0, len(segment.tokens), 1 << 16):
        if not np.isfinite(segment.tokens[start : start + (1 << 16)]).all():
            yield f"segment {folder} holds vectors that are not finite numbers"
            return


def sweep(index_path: Path, keep: set[str]) -> list[str]:
    """Remove the segment folders that are not in `keep`: leftovers of a killed writer, or compacted ones."""
    folder = index_path / FOLDER
    if not folder.is_dir():
        return []
    orphans = [path for path in folder.iterdir() if path.name not in keep]
    for path in orphans:
        # Where an open file cannot be removed (Windows) the next sweep will.
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in orphans]


def _load(path: Path, dtype: type[np.generic], ndim: int, rows: int) -> NDArray[Any]:
    try:
        # A file of zero rows cannot be mapped.
        array: NDArray[Any] = np.load(path, mmap_mode="r" if rows else None, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:
        # Of a damaged header NumPy raises many kinds.
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim or len(array) != rows:
        raise IndexFormatError(f"{path} is damaged: expected {rows} rows of {np.dtype(dtype)} in {ndim} dimensions")
    if isinstance(array, np.memmap) and array.offset + array.nbytes != path.stat().st_size:
        raise IndexFormatError(f"{path} is damaged: it is {path.stat().st_size} bytes long, and not as its header says")
    return array


def _write_array(path: Path, array: NDArray[Any]) -> int:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    return _file_crc(path)


def _file_crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def _sync_folder(path: Path) -> None:
    # Windows has no folder handles to sync.
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
