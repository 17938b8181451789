"""Exact search: MaxSim of a query over every stored token of every passage that may be found."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.blas import one_thread
from rerank_integrations.core.concurrency.cores import on_compute_thread
from rerank_integrations.core.index.segments import FloatSegment, Part, Places
from rerank_integrations.core.maxsim import Floats, maxsim, maxsim_block
from rerank_integrations.core.models.checkpoints.options import resolve_dtype
from rerank_integrations.errors import IndexFormatError, InvalidInputError

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
    for chosen in _product_blocks(full, offsets, _PRODUCTS // max(1, len(query))):
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


def _product_blocks(full: NDArray[np.int64], offsets: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
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


# Small enough for the cache of one core, large enough for BLAS.
_BLOCK_TOKENS = 1 << 14
# Products over fewer tokens than this are done before more threads would pay.
_ALONE_TOKENS = 1 << 19
# Above the float32 error of a sum over hundreds of query tokens, far below a difference that matters.
_ERROR = 5e-4


def exact_candidates(parts: Sequence[Part[FloatSegment]], queries: Sequence[Floats], k: int) -> list[dict[int, float]]:
    """Return, for each query, the scores of every passage that could be among the best `k`.

    Parameters
    ----------
    parts
        What to search.
    queries
        Float32, *Shape:* (query tokens, dim) each.
    k
        At least 1.

    Returns
    -------
    list of dict
        Catalog number to MaxSim: all whose score reaches the `k`-th best, so that the caller can settle ties.

    Raises
    ------
    IndexFormatError, InvalidInputError
        If a score is not finite, by a stored vector or by a query's.
    """
    if not parts:
        return [{} for _ in queries]
    work = len(queries) * sum(part.tokens for part in parts)
    with one_thread() if work < _ALONE_TOKENS else contextlib.nullcontext():
        scanned = [_scan(part, queries) for part in parts]
    found, errors = [scores for scores, _ in scanned], np.max([error for _, error in scanned], axis=0)
    owners = np.concatenate([np.full(len(part.places), number) for number, part in enumerate(parts)])
    places = np.concatenate([part.places for part in parts])
    scores = np.concatenate(found, axis=1)
    _require_finite(parts, scores)
    with one_thread():
        return [
            _settled(parts, query, owners, places, row, k, float(error))
            for query, row, error in zip(queries, scores, errors, strict=True)
        ]


def stored_scores(parts: Sequence[Part[FloatSegment]], query: Floats) -> dict[int, float]:
    """Return the MaxSim of each passage of `parts`, by catalog number."""
    with one_thread():
        scores = {
            int(part.pids[place]): maxsim(query, part.segment.vectors(int(place)))
            for part in parts
            for place in part.places
        }
    _require_finite(parts, np.fromiter(scores.values(), np.float64, len(scores)))
    return scores


def _require_finite(parts: Sequence[Part[FloatSegment]], scores: NDArray[Any]) -> None:
    """Raise unless all scores are numbers: which of them are best could not be told, and fewer would be found."""
    if np.isfinite(scores).all():
        return
    for part in parts:
        if not np.isfinite(part.segment.tokens).all():
            name = part.segment.name
            raise IndexFormatError(f"segment {name} is damaged: it holds vectors that are not finite numbers")
    raise InvalidInputError("a score is not finite: the query's vectors are too large; expected unit vectors")


def _settled(
    parts: Sequence[Part[FloatSegment]],
    query: Floats,
    owners: NDArray[np.int64],
    places: Places,
    scores: Floats,
    k: int,
    error: float,
) -> dict[int, float]:
    if k < len(scores):
        # The k-th best is as far below its true score as another may be above its own.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * error
        chosen = np.flatnonzero(scores >= bar)
    else:
        chosen = np.arange(len(scores))
    settled = {}
    for place in chosen:
        part = parts[int(owners[place])]
        ordinal = int(places[place])
        # Again alone: a score must not depend on which passages lie beside this one.
        settled[int(part.pids[ordinal])] = maxsim(query, part.segment.vectors(ordinal))
    return settled


def _scan(part: Part[FloatSegment], queries: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return scores, *Shape:* (queries, passages of the part), and by how much those of each query may be wrong."""
    if is_rounded(part):
        scores, errors = zip(*(rounded_scores(part, query) for query in queries), strict=True)
        return np.stack(scores), np.array(errors, dtype=np.float32) + _ERROR
    return _float_scores(part, queries), np.full(len(queries), _ERROR, dtype=np.float32)


def _float_scores(part: Part[FloatSegment], queries: Sequence[Floats]) -> Floats:
    places = part.places
    scores = np.empty((len(queries), len(places)), dtype=np.float32)
    lengths = np.diff(part.segment.offsets)[places]
    for chosen in _blocks(lengths):
        full = chosen[lengths[chosen] > 0]
        for row, query in enumerate(queries):
            scores[row, chosen] = -len(query)
        if not len(full):
            continue
        tokens = _gather(part.segment, places[full])
        starts = np.concatenate([[0], np.cumsum(lengths[full])[:-1]]).astype(np.int64)
        for row, query in enumerate(queries):
            scores[row, full] = maxsim_block(query, tokens, starts)
    return scores


def _blocks(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _BLOCK_TOKENS, side="right")))
        yield np.arange(start, end)
        start = end


def _gather(segment: FloatSegment, places: Places) -> Floats:
    offsets, tokens = segment.offsets, segment.tokens
    first, last = int(places[0]), int(places[-1])
    start, end = int(offsets[first]), int(offsets[last + 1])
    run = np.asarray(tokens[start:end])
    if last - first + 1 != len(places):
        keep = np.zeros(last - first + 1, dtype=bool)
        keep[places - first] = True
        run = run[np.repeat(keep, np.diff(offsets[first : last + 2]))]
    return run.astype(np.float32)
