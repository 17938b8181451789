"""Lengths of decompressed vectors, which colbert-ai divides by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.jit import compiled
from rerank_integrations.core.index.plaid.pool import in_parts
from rerank_integrations.core.maxsim import Floats

_SHARED_TOKENS = 1 << 14


def vector_lengths(centroids: Floats, codebook: Floats, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> Floats:
    """Return the length of each token's centroid and residual together, float32, *Shape:* (tokens,)."""
    lengths = np.empty(len(codes), dtype=np.float32)

    def measure(start: int, end: int) -> None:
        # Copies: for other integers, or arrays that cannot be written, the loop would be compiled once more.
        some, rest = np.array(codes[start:end], dtype=np.uint16), np.array(residuals[start:end])
        _measure(centroids, codebook, some, rest, lengths[start:end])

    in_parts(measure, len(codes), _SHARED_TOKENS)
    return lengths


@compiled
def _measure(centroids: Any, codebook: Any, codes: Any, residuals: Any, lengths: Any) -> None:
    size = codebook.shape[1]
    for token in range(len(codes)):
        centroid = codes[token]
        square = 0.0
        for place in range(residuals.shape[1]):
            word = residuals[token, place]
            for i in range(size):
                value = centroids[centroid, place * size + i] + codebook[word, i]
                square += value * value
        lengths[token] = np.sqrt(square)
