"""Arrays in ``.npy`` files: mapped read-only, without Python's parser and without a descriptor that stays open."""

from __future__ import annotations

import ctypes
import io
import math
import mmap
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.refusals import refused_read
from rerank_integrations.errors import IndexFormatError

# Exactly what numpy writes for a plain array. Its own reader gives the text to `ast.literal_eval`, which fails now and
# then when several threads parse at once (CPython 3.11), and of which a damaged file needs nothing.
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiu][1248])', 'fortran_order': False, "
    rb"'shape': \((\d{1,18},|\d{1,18}(?:, \d{1,18})+|)\), \} *\n"
)
_MAGIC = b"\x93NUMPY"
# Version of the format: bytes of the header's length.
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
# numpy pads a header of so few dimensions to 128 bytes, or to less in old versions.
_LONGEST_HEADER = 1 << 12
# Files of old versions of numpy are aligned to this, newer ones to four times as much.
_ALIGNMENT = 16


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array in a file, read-only and C-contiguous; reads the header alone.

    The mapping lives until the last array over it is gone. What cuts the file short meanwhile ends the process.

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
            dtype, shape, offset = _parse(path, stream.read(_LONGEST_HEADER))
            if offset + dtype.itemsize * math.prod(shape) != size:
                raise IndexFormatError(f"{path} is damaged: it is {size} bytes long, and not as its header says")
            return _map(stream.fileno(), size, dtype, shape, offset)
    except FileNotFoundError:
        raise
    except ValueError as error:
        # A shape of no element may be of more than NumPy counts to.
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise refused_read(error, path) from error


def open_array_file(path: Path) -> io.FileIO:
    """Open a file of an index to read it.

    Raises
    ------
    IndexFormatError
        If it is no plain file: a pipe would be waited for without end, and a device be read without end.
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
    """A mapped file; unmapped with the last array over it."""

    def __init__(self, unmap: Callable[[int, int], int], address: int, size: int, array: dict[str, Any]) -> None:
        # NumPy makes an array of it that keeps this object.
        self.__array_interface__ = array
        self._unmap, self._address, self._size = unmap, address, size

    def __del__(self) -> None:
        self._unmap(self._address, self._size)


def _map(descriptor: int, size: int, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> NDArray[Any]:
    if _libc is None:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        found: NDArray[Any] = np.ndarray(shape, dtype, buffer=mapped, offset=offset)
        return found
    # Python's own mmap keeps a copy of the descriptor for as long as the mapping lives: hundreds for one index.
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
