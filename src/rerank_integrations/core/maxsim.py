"""MaxSim, the late-interaction score of ColBERT (Khattab and Zaharia, 2020, arXiv:2004.12832)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.blas import one_thread

Floats: TypeAlias = NDArray[np.float32]


def maxsim(query: Floats, passage: Floats) -> float:
    """Return the sum, over the query's tokens, of the largest dot product with any token of the passage.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    passage
        Float32, *Shape:* (passage tokens, dim). Without tokens the score is the lowest that unit vectors can have:
        minus one per query token.

    Returns
    -------
    float
        Higher is better. It depends on these two arrays alone, not on their position or on their neighbours.
    """
    if not len(passage):
        return -float(len(query))
    # Equal shapes take the same path through BLAS, so equal passages tie exactly wherever they are stored.
    best = (query @ np.ascontiguousarray(passage, dtype=np.float32).T).max(axis=1)
    return float(best.sum(dtype=np.float64))


def maxsim_block(query: Floats, tokens: Floats, starts: NDArray[np.int64]) -> Floats:
    """Return the MaxSim of one query against consecutive passages, each with at least one token.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    tokens
        Float32, *Shape:* (tokens of all the passages, dim).
    starts
        First token of each passage, ascending from 0. *Shape:* (passages,).

    Returns
    -------
    numpy.ndarray
        Float32, *Shape:* (passages,). Equal to `maxsim` within rounding.
    """
    similarities = query @ tokens.T
    scores: Floats = np.maximum.reduceat(similarities, starts, axis=1).sum(axis=0, dtype=np.float32)
    return scores


def maxsim_many(query: Floats, passages: Sequence[Floats]) -> list[float]:
    """Score each passage by `maxsim`."""
    with one_thread():
        return [maxsim(query, passage) for passage in passages]
