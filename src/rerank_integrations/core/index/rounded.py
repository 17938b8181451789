"""MaxSim in bfloat16, with a bound on its error: it tells which passages are worth an exact score.

A processor with AMX or AVX-512 BF16 multiplies bfloat16 several times as fast as float32, and half the bytes are read.
Torch does it, so this is for indexes whose model has loaded torch.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.segments import FloatSegment
from rerank_integrations.core.index.snapshot import Part
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models.compute import on_compute_thread
from rerank_integrations.core.models.options import resolve_dtype

# Fewer are scored sooner than another thread is asked; more would hold too much memory (2 bytes a number).
_LEAST_TOKENS, _MOST_TOKENS = 1 << 13, 1 << 20
# Products at once, 6 bytes each.
_PRODUCTS = 1 << 22
# All of a segment is multiplied, so too small a share of it is not worth that.
_LEAST_SHARE = 0.25
# Of a dot product, by the product of the norms: the sum is rounded to 8 bits (here as if it were just above a power of
# two), and before that in float32.
_PRODUCT_ERROR = 2**-8 + 1e-4


def is_rounded(part: Part[FloatSegment]) -> bool:
    """Whether `rounded_scores` is the faster way to find the best of `part`."""
    tokens, torch = len(part.segment.tokens), sys.modules.get("torch")
    if torch is None or not max(_LEAST_TOKENS, _LEAST_SHARE * tokens) <= part.tokens <= tokens <= _MOST_TOKENS:
        return False
    return resolve_dtype("auto", "cpu") is torch.bfloat16


def rounded_scores(part: Part[FloatSegment], query: Floats) -> tuple[Floats, float]:
    """Return the MaxSim of each passage of `part`, and how far one may be from the true one.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).

    Returns
    -------
    tuple
        Float32, *Shape:* (passages of the part,), in the order of its places; and the bound.
    """
    held = _held(part.segment)
    offsets = part.segment.offsets
    full = np.flatnonzero(np.diff(offsets))
    scores = np.full(len(offsets) - 1, -len(query), dtype=np.float32)
    rounded, lost = _rounded(query)
    for chosen in _blocks(full, offsets, _PRODUCTS // max(1, len(query))):
        first, last = int(offsets[chosen[0]]), int(offsets[chosen[-1] + 1])
        similarities = on_compute_thread("query", functools.partial(_products, rounded, held.tokens[first:last]))
        best = np.maximum.reduceat(similarities, offsets[chosen] - first, axis=1)
        scores[chosen] = best.sum(axis=0, dtype=np.float32)
    # |q t - q' t'| <= |q - q'| |t| + |q'| |t - t'|, by Cauchy and Schwarz, for each query token.
    asked = np.linalg.norm(query, axis=1).astype(np.float64) + lost
    bound = (lost * held.longest + asked * (held.lost + _PRODUCT_ERROR * held.longest)).sum()
    return scores[part.places], float(bound)


def _rounded(query: Floats) -> tuple[Any, NDArray[np.float64]]:
    """Return `query` as a tensor in bfloat16, and how far that has moved each of its tokens."""
    import torch

    given = torch.from_numpy(query)
    rounded = given.bfloat16()
    return rounded, torch.linalg.vector_norm(given - rounded.float(), dim=1).double().numpy()


def _products(query: Any, tokens: Any) -> Floats:
    """Return dot products of tensors, *Shape:* (query tokens, tokens)."""
    import torch

    with torch.inference_mode():
        products: Floats = (query @ tokens.T).float().numpy()
        return products


@dataclass(frozen=True)
class _Tokens:
    """Tokens in bfloat16, a torch tensor; the norm of the longest, and how far rounding has moved one at most."""

    tokens: Any
    longest: float
    lost: float


class _Held:
    """What is computed once of an open segment."""

    def __init__(self) -> None:
        self._by_segment: weakref.WeakKeyDictionary[FloatSegment, _Tokens] = weakref.WeakKeyDictionary()

    def __call__(self, segment: FloatSegment) -> _Tokens:
        found = self._by_segment.get(segment)
        return on_compute_thread("query", lambda: self._once(segment)) if found is None else found

    def _once(self, segment: FloatSegment) -> _Tokens:
        # On the one thread, so that callers who come at once do not all make it.
        found = self._by_segment.get(segment)
        if found is None:
            found = self._by_segment[segment] = _converted(segment)
        return found


def _blocks(full: NDArray[np.int64], offsets: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield runs of the passages `full` of at most so many tokens, or of one passage."""
    start = 0
    while start < len(full):
        end = int(np.searchsorted(offsets[full + 1], offsets[full[start]] + tokens, side="right"))
        yield full[start : max(start + 1, end)]
        start = max(start + 1, end)


def _converted(segment: FloatSegment) -> _Tokens:
    import torch

    rounded, longest, lost = [], 0.0, 0.0
    with torch.inference_mode():
        for start in range(0, len(segment.tokens), _LEAST_TOKENS):
            # A copy: the mapped array is read-only, and goes with the segment.
            block = torch.from_numpy(np.array(segment.tokens[start : start + _LEAST_TOKENS])).float()
            rounded.append(block.bfloat16())
            longest = max(longest, float(torch.linalg.vector_norm(rounded[-1].float(), dim=1).max()))
            lost = max(lost, float(torch.linalg.vector_norm(block - rounded[-1].float(), dim=1).max()))
        # Of what is rounded and of what is not.
        return _Tokens(torch.cat(rounded), longest + lost, lost)


_held = _Held()
