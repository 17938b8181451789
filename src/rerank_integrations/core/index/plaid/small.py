"""A codec in bytes, for the stages that choose, with how far the bytes are from the truth."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.codec import Codec
from rerank_integrations.core.index.plaid.simd import FLOATS
from rerank_integrations.core.maxsim import Floats


@dataclass(frozen=True)
class Small:
    """A codec in bytes, each 128 more than what it stands for in units.

    Parameters
    ----------
    centroids
        Uint8, *Shape:* (centroids, dim), flat, padded to a multiple of 4 of them.
    words
        The codebook's rows, each as one unsigned number, *Shape:* (256,).
    centroid_error, word_error
        How far a centroid, or a residual of scale 1, may be from what its bytes stand for.
    longest_centroid, longest_words
        How long what the bytes stand for may be.
    wide
        The centroids in float32, *Shape:* (centroids, dim up to a multiple of 16).
    codebook
        In float32, flat.
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


def in_bytes(codec: Codec) -> Small:
    """Return it, made once for as long as the codec lives."""
    found = _SMALL.get(codec)
    if found is None:
        # Another thread's is the same.
        found = _SMALL[codec] = _made(codec)
    return found


_SMALL: weakref.WeakKeyDictionary[Codec, Small] = weakref.WeakKeyDictionary()


def _made(codec: Codec) -> Small:
    count, dim = codec.centroids.shape
    centroids, centroid_unit = _in_bytes(codec.centroids)
    padded = np.full((-(-count // 4) * 4, dim), 128, dtype=np.uint8)
    padded[:count] = centroids
    words, word_unit = _in_bytes(codec.codebook)
    # Each byte of a residual is off by as much as its word, at most.
    each = float(np.sqrt(codec.residual_bytes))
    return Small(
        padded.reshape(-1),
        centroid_unit,
        _longest(codec.centroids - _from_bytes(centroids, centroid_unit)),
        max(_longest(_from_bytes(centroids, centroid_unit)), codec.longest_centroid),
        words.view(f"u{words.shape[1]}").reshape(-1),
        word_unit,
        each * _longest(codec.codebook - _from_bytes(words, word_unit)),
        each * _longest(_from_bytes(words, word_unit)),
        np.pad(codec.centroids, ((0, 0), (0, -dim % FLOATS))) if dim % FLOATS else codec.centroids,
        # A copy, as a loop for arrays that cannot be written would be another.
        np.array(codec.codebook).reshape(-1),
    )


def _in_bytes(values: Floats) -> tuple[NDArray[np.uint8], np.float32]:
    unit = np.float32(max(float(np.abs(values).max()), 1e-30) / 127)
    return (np.rint(values / unit) + 128).astype(np.uint8), unit


def _from_bytes(values: NDArray[np.uint8], unit: np.float32) -> Floats:
    found: Floats = (values.astype(np.float32) - 128) * unit
    return found


def _longest(rows: Floats) -> float:
    return float(np.linalg.norm(rows, axis=1).max())
