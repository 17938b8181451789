"""Immutable folders of ``.npy`` files: written whole and synced or not at all, mapped, checked by CRC-32."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.errors import IndexFormatError, IndexWriteError

Checksums = dict[str, int]


def write_arrays(parent: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, Checksums]:
    """Write and sync a new folder of arrays in `parent`; it is part of the index once the catalog names it.

    Returns
    -------
    tuple
        The folder's name, and the CRC-32 of each whole file by the array's name.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    name = uuid.uuid4().hex
    final = parent / name
    temporary = parent / f"{name}.tmp"
    try:
        temporary.mkdir(parents=True)
        checksums = {key: _write_array(temporary / f"{key}.npy", array) for key, array in arrays.items()}
        sync_path(temporary)
        temporary.rename(final)
        sync_path(parent)
        sync_path(parent.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        size = sum(array.nbytes for array in arrays.values())
        raise IndexWriteError(f"cannot write {size} bytes to {final}: {error}; the last commit stands") from error
    return name, checksums


def map_array(path: Path, dtype: type[np.generic] | None, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Map an array, read-only; reads its header alone.

    Parameters
    ----------
    shape
        What it must have; ``None`` for any length of at least one dimension.

    Raises
    ------
    FileNotFoundError
        If it is gone: another process has compacted the index.
    IndexFormatError
        If it is not what was expected.
    """
    try:
        # A file of zero rows cannot be mapped.
        array: NDArray[Any] = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:
        # Of a damaged header NumPy raises many kinds.
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    fits = isinstance(array, np.ndarray) and dtype in (None, array.dtype) and len(array.shape) == len(shape)
    fits = fits and array.flags.c_contiguous
    if (
        not fits
        or not array.flags.c_contiguous
        or any(want is not None and have != want for have, want in zip(array.shape, shape, strict=True))
    ):
        raise IndexFormatError(f"{path} is damaged: expected an array of {dtype and np.dtype(dtype)} of shape {shape}")
    if isinstance(array, np.memmap) and array.offset + array.nbytes != path.stat().st_size:
        raise IndexFormatError(f"{path} is damaged: it is {path.stat().st_size} bytes long, and not as its header says")
    return array


def checksum_problems(folder: Path, expected: Mapping[str, int]) -> Iterator[str]:
    """Yield each file of `folder` that is missing, or that has another checksum than `expected`."""
    for key, want in expected.items():
        path = folder / f"{key}.npy"
        try:
            found = _file_crc(path)
        except OSError as error:
            yield f"{path} is missing or cannot be read: {error}"
            continue
        if found != want:
            yield f"{path} has the checksum {found:08x}; expected {want:08x}"


def sweep(parent: Path, keep: set[str]) -> list[str]:
    """Remove the folders in `parent` that are not in `keep`: leftovers of a killed writer, or compacted ones."""
    if not parent.is_dir():
        return []
    orphans = [path for path in parent.iterdir() if path.name not in keep]
    for path in orphans:
        # Where an open file cannot be removed (Windows) the next sweep will.
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in orphans]


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


def sync_path(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    # Windows has no folder handles to sync.
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
