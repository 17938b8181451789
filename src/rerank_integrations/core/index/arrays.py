"""Immutable folders of ``.npy`` files: written whole and synced or not at all, mapped, checked by CRC-32."""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.npy import map_npy, open_array_file
from rerank_integrations.core.index.refusals import cause, refused_read
from rerank_integrations.errors import IndexFormatError, IndexWriteError

Checksums = dict[str, int]


def write_arrays(parent: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> Checksums:
    """Write and sync a new folder of arrays, `name` in `parent`; it is part of the index once the catalog names it.

    Returns
    -------
    dict
        The CRC-32 of each whole file by the array's name.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
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
        raise IndexWriteError(
            f"cannot write {size} bytes to {final}: {cause(error)}; the last commit stands"
        ) from error
    return checksums


def map_array(path: Path, dtype: type[np.generic] | None, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Map an array, read-only; reads its header alone.

    Parameters
    ----------
    shape
        What it must have; ``None`` for any length.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    IndexFormatError
        If it is not what was expected.
    IndexReadError
        If the operating system refuses it.
    """
    array = map_npy(path)
    fits = dtype in (None, array.dtype) and len(array.shape) == len(shape)
    if not fits or any(want is not None and have != want for have, want in zip(array.shape, shape, strict=True)):
        raise IndexFormatError(
            f"{path} is damaged: it holds {array.dtype} of shape {array.shape}; expected "
            f"{'any' if dtype is None else np.dtype(dtype)} of shape {shape}"
        )
    return array


def checksum_problems(folder: Path, expected: Mapping[str, int]) -> Iterator[str]:
    """Yield each file of `folder` that is missing, or that has another checksum than `expected`.

    Raises
    ------
    IndexReadError
        If the operating system refuses to read one.
    """
    for key, want in expected.items():
        path = folder / f"{key}.npy"
        try:
            found = _file_crc(path)
        except FileNotFoundError:
            yield f"{path} is missing"
            continue
        except IndexFormatError as error:
            yield str(error)
            continue
        except OSError as error:
            raise refused_read(error, path) from error
        if found != want:
            yield f"{path} has the checksum {found:08x}; expected {want:08x}"


def _write_array(path: Path, array: NDArray[Any]) -> int:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    return _file_crc(path)


def _file_crc(path: Path) -> int:
    crc = 0
    with open_array_file(path) as stream:
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
