"""A reader of PyTorch's ``.pt`` files without PyTorch: nothing in a file is ever run, and it returns only arrays.

Such a file is a zip of a small pickle, ``data.pkl``, which describes the tensors, and one raw member for each storage.
The pickle is accepted only if it uses no other opcodes and names than those with which ``torch.save`` writes tensors,
tuples and lists. Storages are mapped, not read, so a file larger than the memory can be opened.

Time and memory are bounded by the size of the file, whatever it holds. A pickle of a few hundred bytes can name a tuple
of 2^100 leaves, each level twice the one before. That costs nothing as long as nobody walks through it, so no such
value is hashed, compared or put into a message here.

``torch.load(weights_only=True, mmap=True)`` is no replacement (torch 2.13): it hashes such a tuple without an end, as a
key of an OrderedDict or as the number of a storage. It does not check the zip's checksums, so a flipped bit of a tensor
goes unnoticed. And it needs torch, without which an index folder can be checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.colbert_ai.json_files import brief
from rerank_integrations.errors import IndexFormatError

Array: TypeAlias = "NDArray[Any]"

_EXPECTED = "expected a file that torch.save writes (PyTorch 1.6 or later), of tensors only"
_PICKLE_BYTES = 1 << 16
# A file has one or two tensors.
_MAX_STORAGES = 8
_MAX_DIMENSIONS = 4
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED_DICT = "collections OrderedDict"
_STORAGES = {
    "torch HalfStorage": "<f2",
    "torch FloatStorage": "<f4",
    "torch IntStorage": "<i4",
    "torch LongStorage": "<i8",
    "torch ByteStorage": "|u1",
    "torch BoolStorage": "|b1",
}
_GLOBALS = {_REBUILD, _ORDERED_DICT, *_STORAGES}
# LONG_BINPUT is absent on purpose: it can make the unpickler allocate gigabytes.
_OPCODES = {"PROTO", "STOP", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "BINGET", "BINUNICODE", "NEWFALSE", "NEWTRUE"}
_OPCODES |= {"BININT", "BININT1", "BININT2", "LONG1", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
_OPCODES |= {"EMPTY_LIST", "APPEND", "APPENDS"}


def load_tensor(path: Path) -> Array:
    """Return the one tensor of `path` as a read-only array.

    Raises
    ------
    IndexFormatError
        If the file is missing, damaged, or holds or names anything but one tensor.
    """
    tensor = _load(path)
    if not isinstance(tensor, np.ndarray):
        raise IndexFormatError(f"{path} holds a {type(tensor).__name__}; expected one tensor")
    return tensor


def load_pair(path: Path) -> tuple[Array, Array]:
    """Return the two tensors of `path`; errors as those of `load_tensor`."""
    pair = _load(path)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(item, np.ndarray) for item in pair):
        raise IndexFormatError(f"{path} holds something else than a pair of tensors; expected (tensor, tensor)")
    return pair[0], pair[1]


def _load(path: Path) -> Any:
    try:
        # Reading a device or a pipe may never end.
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive).load()
    except IndexFormatError:
        raise
    except FileNotFoundError as error:
        raise IndexFormatError(f"{path} is missing; {_EXPECTED}") from error
    except Exception as error:
        # Python raises many kinds of errors for damaged zips and pickles.
        raise IndexFormatError(f"{path} is damaged: {error}; {_EXPECTED}") from error


@dataclass(frozen=True)
class _Storage:
    values: Array


class _Archive:
    """An open ``.pt`` file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._storages: dict[str, _Storage] = {}
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise IndexFormatError(f"{path} holds {len(pickles)} members named data.pkl; {_EXPECTED}")
        self._prefix = pickles[0].removesuffix("data.pkl")

    def load(self) -> Any:
        if self._prefix + "byteorder" in self._archive.namelist():
            order = self._archive.read(self._member("byteorder", 16))
            if order != b"little":
                raise IndexFormatError(f"{self._path} has the byte order {brief(order)}; expected b'little'")
        pickled = self._archive.read(self._member("data.pkl", _PICKLE_BYTES))
        _check_pickle(self._path, pickled)
        return _Unpickler(pickled, self).load()

    def storage(self, persistent_id: Any) -> _Storage:
        """Map the member that a persistent id, ``("storage", type, number, device, length)``, refers to."""
        if type(persistent_id) is not tuple or len(persistent_id) != 5:
            raise ValueError("it describes a storage by something else than five values")
        kind, dtype, number, _, length = persistent_id
        if type(kind) is not str or type(number) is not str or type(length) is not int:
            raise ValueError("it describes a storage by values of other types than text, text and integer")
        if kind != "storage" or not isinstance(dtype, np.dtype) or not number.isdigit():
            raise ValueError(f"it describes a storage as {brief(kind)} with the number {brief(number)}")
        if number not in self._storages:
            # Each storage is read through, so one that is named a thousand times must not be read a thousand times.
            if len(self._storages) == _MAX_STORAGES:
                raise ValueError(f"it names more than {_MAX_STORAGES} storages")
            self._storages[number] = self._mapped(number, dtype, length)
        storage = self._storages[number]
        if storage.values.dtype != dtype or len(storage.values) != length:
            raise ValueError(f"it describes storage {number} in two ways")
        return storage

    def _mapped(self, number: str, dtype: np.dtype[Any], length: int) -> _Storage:
        info = self._member(f"data/{number}", None)
        if info.file_size != length * dtype.itemsize:
            raise ValueError(
                f"storage {number} has {info.file_size} bytes, not the {length * dtype.itemsize} announced"
            )
        # Reading through to the end checks the zip's checksum, which shows a flipped bit or a cut end.
        with self._archive.open(info) as stream:
            while stream.read(1 << 20):
                pass
        if length == 0:
            return _Storage(np.empty(0, dtype))
        return _Storage(np.memmap(self._path, dtype, "r", self._offset(info), (length,)))

    def _member(self, name: str, most: int | None) -> zipfile.ZipInfo:
        info = self._archive.getinfo(self._prefix + name)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"its member {info.filename} is compressed")
        if most is not None and info.file_size > most:
            raise ValueError(f"its member {info.filename} has {info.file_size} bytes, more than {most}")
        return info

    def _offset(self, info: zipfile.ZipInfo) -> int:
        with self._path.open("rb") as stream:
            stream.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", stream.read(4))
        return int(info.header_offset + 30 + name_length + extra_length)


class _Unpickler(pickle.Unpickler):
    """Unpickler that turns the description into arrays and looks up no name outside this module."""

    def __init__(self, pickled: bytes, archive: _Archive) -> None:
        super().__init__(io.BytesIO(pickled))
        self._storage_of = archive.storage

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; `_check_pickle` has refused all others."""
        wanted = f"{module} {name}"
        if wanted in _STORAGES:
            return np.dtype(_STORAGES[wanted])
        return {_REBUILD: _rebuild_tensor, _ORDERED_DICT: _no_hooks}[wanted]

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that `pid` refers to."""
        return self._storage_of(pid)


def _check_pickle(path: Path, pickled: bytes) -> None:
    steps = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(pickled)]
    strings = ["", ""]
    for opcode, argument in steps:
        if opcode in ("GLOBAL", "INST") and argument not in _GLOBALS:
            _refuse(path, str(argument))
        if opcode == "STACK_GLOBAL":
            _refuse(path, " ".join(strings))
        if isinstance(argument, str):
            strings = [strings[1], argument]
    for opcode, _ in steps:
        if opcode not in _OPCODES:
            raise IndexFormatError(f"{path} is refused: its pickle uses {opcode}; {_EXPECTED}")


def _refuse(path: Path, name: str) -> None:
    shown = name.replace(" ", ".") if len(name) <= 80 and name.isprintable() else brief(name)
    raise IndexFormatError(f"{path} is refused: its pickle names {shown}; {_EXPECTED}")


def _no_hooks() -> None:
    """Replace the empty OrderedDict of a tensor's hooks, since a filled one would hash values from the file."""


def _rebuild_tensor(storage: Any, offset: Any, size: Any, strides: Any, *_: Any) -> Array:
    if not isinstance(storage, _Storage):
        raise ValueError(f"it describes a tensor of a {type(storage).__name__}; expected a storage")
    for numbers in ((offset,), size, strides):
        if type(numbers) is not tuple or len(numbers) > _MAX_DIMENSIONS:
            raise ValueError(f"it describes a tensor of other than at most {_MAX_DIMENSIONS} dimensions")
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
            raise ValueError("it describes a tensor by numbers that are no offset, size or strides")
    packed = [math.prod(size[axis + 1 :]) for axis in range(len(size))]
    if len(size) != len(strides) or any(
        length > 1 and stride != wanted for length, stride, wanted in zip(size, strides, packed, strict=True)
    ):
        raise ValueError(f"a tensor of size {size} has the strides {strides}, not the {tuple(packed)} of a packed one")
    length = math.prod(size)
    if offset + length > len(storage.values):
        raise ValueError(f"a tensor of size {size} starts at {offset} of {len(storage.values)} stored values")
    tensor: Array = storage.values[offset : offset + length].reshape(size)
    return tensor
