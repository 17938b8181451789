"""A query's stages on the CPU: bytes choose the passages, floats give the scores that are returned."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.lanes import in_parts
from rerank_integrations.core.index.plaid import centroid_kernels, token_kernels
from rerank_integrations.core.index.plaid.simd import BYTES, FLOATS
from rerank_integrations.core.index.plaid.warming import require_compiled
from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.segments import Group, Ordinals, PlaidSegment
from rerank_integrations.core.maxsim import Floats


@dataclass(frozen=True)
class ByteCodec:
    """The 8-bit form of a codec, for integer products: a byte ``b`` stands for ``(b - 128) * unit``.

    Parameters
    ----------
    centroids
        Uint8, *Shape:* (centroids, dim), flat, padded to a multiple of 4 centroids.
    words
        The codebook's rows, each as one unsigned number, *Shape:* (256,).
    centroid_error, word_error
        The largest distance of a centroid, or of a residual of scale 1, from the vector that its bytes stand for.
    longest_centroid, longest_words
        The largest length of a vector that the bytes stand for.
    wide
        The centroids in float32, *Shape:* (centroids, dim rounded up to a multiple of 16).
    codebook
        The codebook in float32, flat.
    """

    centroids: NDArray[np.uint8]
    centroid_unit: np.float32
    centroid_error: float
    longest_centroid: float
    words: NDArray[Any]
    word_unit: np.float32
    word_error: float
    longest_words: float
    wide: Floats
    codebook: Floats


def byte_codec(codec: Codec) -> ByteCodec:
    """Return the 8-bit form of a codec; it is made once and lives as long as the codec."""
    in_bytes = _BYTE_CODECS.get(codec)
    if in_bytes is None:
        # Another thread that comes at the same time makes an equal one.
        in_bytes = _BYTE_CODECS[codec] = _to_byte_codec(codec)
    return in_bytes


_BYTE_CODECS: weakref.WeakKeyDictionary[Codec, ByteCodec] = weakref.WeakKeyDictionary()


def _to_byte_codec(codec: Codec) -> ByteCodec:
    count, dim = codec.centroids.shape
    centroids, centroid_unit = _to_bytes(codec.centroids)
    padded = np.full((-(-count // 4) * 4, dim), 128, dtype=np.uint8)
    padded[:count] = centroids
    words, word_unit = _to_bytes(codec.codebook)
    # Each byte of a residual is off by at most the error of its word, and errors add up as lengths do.
    root_bytes = float(np.sqrt(codec.residual_bytes))
    return ByteCodec(
        padded.reshape(-1),
        centroid_unit,
        _longest(codec.centroids - _from_bytes(centroids, centroid_unit)),
        max(_longest(_from_bytes(centroids, centroid_unit)), codec.longest_centroid),
        words.view(f"u{words.shape[1]}").reshape(-1),
        word_unit,
        root_bytes * _longest(codec.codebook - _from_bytes(words, word_unit)),
        root_bytes * _longest(_from_bytes(words, word_unit)),
        np.pad(codec.centroids, ((0, 0), (0, -dim % FLOATS))) if dim % FLOATS else codec.centroids,
        # A copy, since numba would compile the loops once more for read-only arrays.
        np.array(codec.codebook).reshape(-1),
    )


def _to_bytes(values: Floats) -> tuple[NDArray[np.uint8], np.float32]:
    unit = np.float32(max(float(np.abs(values).max()), 1e-30) / 127)
    return (np.rint(values / unit) + 128).astype(np.uint8), unit


def _from_bytes(values: NDArray[np.uint8], unit: np.float32) -> Floats:
    floats: Floats = (values.astype(np.float32) - 128) * unit
    return floats


def _longest(rows: Floats) -> float:
    return float(np.linalg.norm(rows, axis=1).max())


# A stage over fewer passages or centroids than this is not worth starting another thread.
_SHARED_PASSAGES = 1 << 13
_SHARED_CENTROIDS = 1 << 15
# `token_kernels.nearly` looks only at the tokens near each query token's best centroid. Measured (benchmarks/index.py):
# a third of the time, and no worse recall than all tokens of all candidates.
_SLACK = 8


class CpuQuery:
    """A query's tables for one codec.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    """

    def __init__(self, codec: Codec, query: Floats) -> None:
        require_compiled(codec.nbits)
        self._codec = codec
        self._count = len(query)
        self._bytes = in_bytes = byte_codec(codec)
        rotated = codec.rotate(query)
        dim = rotated.shape[1]
        blocks = -(-self._count // FLOATS)
        self._columns = np.zeros((blocks, in_bytes.wide.shape[1], FLOATS), dtype=np.float32)
        signed = np.zeros((blocks, dim // 4, FLOATS, 4), dtype=np.int8)
        facts = np.zeros((6, blocks * FLOATS), dtype=np.float32)
        level_unit = centroid_kernels.query_tables(
            rotated,
            in_bytes.centroid_unit,
            in_bytes.centroid_error,
            in_bytes.longest_centroid,
            in_bytes.word_unit,
            in_bytes.word_error,
            in_bytes.longest_words,
            codec.whole,
            self._columns,
            signed,
            facts,
        )
        units, shifts, margins, scaled_margins, factors, level_shifts = facts
        lanes = -(-blocks * FLOATS // BYTES) * BYTES
        levels = np.empty((len(in_bytes.centroids) // dim, lanes), dtype=np.uint8)
        columns = signed.reshape(-1).view(np.uint8)
        self._query = token_kernels.Query(
            levels.reshape(-1),
            lanes,
            np.float32(level_unit),
            in_bytes.words,
            columns,
            units,
            shifts,
            margins,
            scaled_margins,
            self._count,
        )

        def score(start: int, end: int) -> None:
            # The kernel takes whole groups of four.
            rows = slice(start // 4 * 4, end // 4 * 4)
            centroid_bytes = in_bytes.centroids[rows.start * dim : rows.stop * dim]
            centroid_kernels.centroid_levels(centroid_bytes, columns, factors, level_shifts, levels[rows])

        in_parts(score, len(levels), _SHARED_CENTROIDS)
        self._levels = levels

    def finalists(self, group: Group, probes: int | None, candidates: int, finalists: int) -> list[Ordinals]:
        """Choose those passages of each part whose MaxSim is worth computing; see `search.PreparedQuery`."""
        codec = self._codec
        bounds = np.empty(len(group.parts) + 1, dtype=np.int64)
        ordinals = token_kernels.finalists(
            token_kernels.part_table(group),
            np.dtype(codec.scale_type).itemsize,
            codec.residual_bytes,
            np.float32(codec.step),
            codec.whole,
            self._query,
            self._levels,
            len(codec.centroids),
            min(probes or 0, len(codec.centroids)),
            candidates,
            _SLACK,
            finalists,
            bounds,
        )
        return [ordinals[start:end] for start, end in itertools.pairwise(bounds)]

    def scores(self, segment: PlaidSegment, ordinals: Ordinals) -> NDArray[np.float64]:
        """Return the MaxSim of the passages' decompressed vectors."""
        out = np.empty(len(ordinals), dtype=np.float64)
        codec, in_bytes, columns = self._codec, self._bytes, self._columns.reshape(-1)
        row = np.array(token_kernels.segment_row(segment), dtype=np.uintp)

        def score(start: int, end: int) -> None:
            token_kernels.maxsim(
                row,
                np.dtype(codec.scale_type).itemsize,
                codec.residual_bytes,
                np.float32(codec.step),
                codec.whole,
                self._query,
                ordinals[start:end],
                in_bytes.wide,
                in_bytes.codebook,
                columns,
                out[start:end],
            )

        in_parts(score, len(ordinals), _SHARED_PASSAGES)
        return out
