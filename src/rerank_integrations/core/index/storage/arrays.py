"""Immutable folders of ``.npy`` files: written whole and synced or not at all, mapped, checked by CRC-32."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import mmap
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.storage.refusals import cause, refused_read
from rerank_integrations.errors import IndexFormatError, IndexWriteError

# Exactly the header that numpy writes for a plain array. numpy's own reader gives the text to `ast.literal_eval`, which
# now and then fails when several threads parse at once (CPython 3.11), and which a damaged file should not reach.
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiu][1248])', 'fortran_order': False, "
    rb"'shape': \((\d{1,18},|\d{1,18}(?:, \d{1,18})+|)\), \} *\n"
)
_MAGIC = b"\x93NUMPY"
# The number of bytes of the header's length, by version of the format.
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
# numpy pads a header of so few dimensions to 128 bytes, or to less in old versions.
_MAX_HEADER_BYTES = 1 << 12
# Arrays in files of old versions of numpy are aligned to this, those of newer ones to four times as much.
_ALIGNMENT = 16


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array in a file, read-only and C-contiguous; only the header is read.

    The mapping lives until the last array over it is gone. A program that shortens the file meanwhile ends the process.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IndexFormatError
        If it is not as numpy writes an array of numbers, or is longer or shorter than its header says.
    IndexReadError
        If the operating system refuses it.
    """
    try:
        with open_array_file(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            dtype, shape, offset = _parse(path, stream.read(_MAX_HEADER_BYTES))
            if offset + dtype.itemsize * math.prod(shape) != size:
                raise IndexFormatError(f"{path} is damaged: it is {size} bytes long, and not as its header says")
            return _map(stream.fileno(), size, dtype, shape, offset)
    except FileNotFoundError:
        raise
    except ValueError as error:
        # The shape of an array without elements may have dimensions larger than NumPy can count.
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise refused_read(error, path) from error


def open_array_file(path: Path) -> io.FileIO:
    """Open a file of an index to read it.

    Raises
    ------
    IndexFormatError
        If it is no plain file: opening a pipe could wait for ever, and reading a device never ends.
    """
    stream = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise IndexFormatError(f"{path} is damaged: it is no plain file")
    return stream


def _parse(path: Path, start: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return dtype, shape, and where the numbers begin."""
    width = _LENGTH_BYTES.get(start[6:8])
    if start[:6] != _MAGIC or width is None:
        raise IndexFormatError(f"{path} is damaged: it does not begin as a .npy file does")
    offset = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    if offset > len(start) or offset % _ALIGNMENT:
        raise IndexFormatError(f"{path} is damaged: its header ends at byte {offset}")
    match = _HEADER.fullmatch(start[8 + width : offset])
    if match is None:
        raise IndexFormatError(f"{path} is damaged: its header is not one that numpy writes for rows of numbers")
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    return dtype, tuple(int(number) for number in match[2].split(b",") if number), offset


class _Mapping:
    """A mapped file, which is unmapped with the last array over it."""

    def __init__(self, unmap: Callable[[int, int], int], address: int, size: int, array: dict[str, Any]) -> None:
        # An array that NumPy makes from this interface keeps this object alive.
        self.__array_interface__ = array
        self._unmap, self._address, self._size = unmap, address, size

    def __del__(self) -> None:
        self._unmap(self._address, self._size)


def _map(descriptor: int, size: int, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    if _libc is None:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        array_of_map: NDArray[Any] = np.ndarray(shape, dtype, buffer=mapped, offset=offset)
        return array_of_map
    # Python's own mmap keeps a copy of the descriptor while the mapping lives, which would be hundreds for one index.
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}, mapping {size} bytes")
    described = {"version": 3, "typestr": dtype.str, "shape": shape, "data": (address + offset, True)}
    owner = _Mapping(_libc.munmap, address, size, described)
    array: NDArray[Any] = np.asarray(owner)
    return array


def _load_libc() -> ctypes.CDLL | None:
    """Return the C library, or ``None`` where it has no mmap (Windows)."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.restype = ctypes.c_int
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


_libc = _load_libc()


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
    """Map an array, read-only, and check its dtype and shape; only its header is read.

    Parameters
    ----------
    shape
        The expected shape; ``None`` for any length.

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
    """Yield a sentence for each file of `folder` that is missing, or whose checksum is not the `expected` one.

    Raises
    ------
    IndexReadError
        If the operating system refuses to read one.
    """
    for key, want in expected.items():
        path = folder / f"{key}.npy"
        try:
            crc = _file_crc(path)
        except FileNotFoundError:
            yield f"{path} is missing"
            continue
        except IndexFormatError as error:
            yield str(error)
            continue
        except OSError as error:
            raise refused_read(error, path) from error
        if crc != want:
            yield f"{path} has the checksum {crc:08x}; expected {want:08x}"


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
    """Flush a file, or the names in a folder, to the disk."""
    # Windows has no folder handles to sync.
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
