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
from rerank_integrations.core.index.storage.segments import FloatSegment, Ordinals, Part
from rerank_integrations.core.maxsim import Floats, maxsim, maxsim_block
from rerank_integrations.core.models.checkpoints.options import resolve_dtype
from rerank_integrations.errors import IndexFormatError, InvalidInputError

# Scoring fewer tokens takes less time than handing the work to another thread. More would take too much memory (2 bytes
# per number).
_MIN_TOKENS, _MAX_TOKENS = 1 << 13, 1 << 20
# The number of products computed at once, 6 bytes each.
_MAX_PRODUCTS = 1 << 22
# The whole segment is multiplied, which is not worth it for a smaller share of its tokens.
_MIN_SHARE = 0.25
# The error of a dot product relative to the product of the norms: the sum is rounded to 8 bits (here as if it were just
# above a power of two), and in float32 before that.
_PRODUCT_ERROR = 2**-8 + 1e-4


def is_rounded(part: Part[FloatSegment]) -> bool:
    """Return True if `rounded_scores` finds the best of `part` faster than float32 does."""
    tokens, torch = len(part.segment.tokens), sys.modules.get("torch")
    if torch is None or not max(_MIN_TOKENS, _MIN_SHARE * tokens) <= part.tokens <= tokens <= _MAX_TOKENS:
        return False
    return resolve_dtype("auto", "cpu") is torch.bfloat16


def rounded_scores(part: Part[FloatSegment], query: Floats) -> tuple[Floats, float]:
    """Return the approximate MaxSim of each passage of `part`, and a bound of its error.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).

    Returns
    -------
    tuple
        Float32, *Shape:* (passages of the part,), in the order of its ordinals; and the bound.
    """
    converted = _converted_tokens(part.segment)
    offsets = part.segment.offsets
    full = np.flatnonzero(np.diff(offsets))
    scores = np.full(len(offsets) - 1, -len(query), dtype=np.float32)
    rounded, lost = _rounded(query)
    for chosen in _product_blocks(full, offsets, _MAX_PRODUCTS // max(1, len(query))):
        first, last = int(offsets[chosen[0]]), int(offsets[chosen[-1] + 1])
        similarities = on_compute_thread("query", functools.partial(_products, rounded, converted.tokens[first:last]))
        best = np.maximum.reduceat(similarities, offsets[chosen] - first, axis=1)
        scores[chosen] = best.sum(axis=0, dtype=np.float32)
    # |q t - q' t'| <= |q - q'| |t| + |q'| |t - t'|, by Cauchy and Schwarz, for each query token.
    query_norms = np.linalg.norm(query, axis=1).astype(np.float64) + lost
    bound = (lost * converted.longest + query_norms * (converted.lost + _PRODUCT_ERROR * converted.longest)).sum()
    return scores[part.ordinals], float(bound)


def _rounded(query: Floats) -> tuple[Any, NDArray[np.float64]]:
    """Return `query` as a tensor in bfloat16, and by how much rounding has moved each of its tokens."""
    import torch

    exact = torch.from_numpy(query)
    rounded = exact.bfloat16()
    return rounded, torch.linalg.vector_norm(exact - rounded.float(), dim=1).double().numpy()


def _products(query: Any, tokens: Any) -> Floats:
    """Return the dot products of tensors, *Shape:* (query tokens, tokens)."""
    import torch

    with torch.inference_mode():
        products: Floats = (query @ tokens.T).float().numpy()
        return products


@dataclass(frozen=True)
class _Tokens:
    """Tokens as a torch tensor in bfloat16, their largest norm, and the largest distance that rounding moved one."""

    tokens: Any
    longest: float
    lost: float


class _ConvertedTokens:
    """Cache of the rounded tokens of open segments."""

    def __init__(self) -> None:
        self._by_segment: weakref.WeakKeyDictionary[FloatSegment, _Tokens] = weakref.WeakKeyDictionary()

    def __call__(self, segment: FloatSegment) -> _Tokens:
        tokens = self._by_segment.get(segment)
        return on_compute_thread("query", lambda: self._once(segment)) if tokens is None else tokens

    def _once(self, segment: FloatSegment) -> _Tokens:
        # This runs on the single thread of queries, so that only the first of several callers converts.
        tokens = self._by_segment.get(segment)
        if tokens is None:
            tokens = self._by_segment[segment] = _converted(segment)
        return tokens


def _product_blocks(full: NDArray[np.int64], offsets: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield runs of the passages `full` with at most `tokens` tokens each, or of a single passage."""
    start = 0
    while start < len(full):
        end = int(np.searchsorted(offsets[full + 1], offsets[full[start]] + tokens, side="right"))
        yield full[start : max(start + 1, end)]
        start = max(start + 1, end)


def _converted(segment: FloatSegment) -> _Tokens:
    import torch

    rounded, longest, lost = [], 0.0, 0.0
    with torch.inference_mode():
        for start in range(0, len(segment.tokens), _MIN_TOKENS):
            # A copy, since the mapped array is read-only, and is unmapped with the segment.
            block = torch.from_numpy(np.array(segment.tokens[start : start + _MIN_TOKENS])).float()
            rounded.append(block.bfloat16())
            longest = max(longest, float(torch.linalg.vector_norm(rounded[-1].float(), dim=1).max()))
            lost = max(lost, float(torch.linalg.vector_norm(block - rounded[-1].float(), dim=1).max()))
        # The sum bounds the norms of both the rounded and the exact tokens.
        return _Tokens(torch.cat(rounded), longest + lost, lost)


_converted_tokens = _ConvertedTokens()


# A block is small enough for the cache of one core, and large enough for BLAS.
_BLOCK_TOKENS = 1 << 14
# Products over fewer tokens than this end before more threads would pay.
_MIN_SHARED_TOKENS = 1 << 19
# More than the float32 error of a sum over hundreds of query tokens, and far less than a difference that matters.
_FLOAT32_ERROR = 5e-4


def exact_candidates(parts: Sequence[Part[FloatSegment]], queries: Sequence[Floats], k: int) -> list[dict[int, float]]:
    """Return, for each query, the scores of every passage that could be among the best `k`.

    Parameters
    ----------
    parts
        The passages to search.
    queries
        Float32, *Shape:* (query tokens, dim) each.
    k
        At least 1.

    Returns
    -------
    list of dict
        Catalog number to MaxSim: every passage whose score reaches the `k`-th best, so that the caller can settle ties.

    Raises
    ------
    IndexFormatError, InvalidInputError
        If a score is not finite because of a stored vector, or because of the query's.
    """
    if not parts:
        return [{} for _ in queries]
    work = len(queries) * sum(part.tokens for part in parts)
    with one_thread() if work < _MIN_SHARED_TOKENS else contextlib.nullcontext():
        scanned = [_scan(part, queries) for part in parts]
    approximate, errors = [scores for scores, _ in scanned], np.max([error for _, error in scanned], axis=0)
    owners = np.concatenate([np.full(len(part.ordinals), number) for number, part in enumerate(parts)])
    ordinals = np.concatenate([part.ordinals for part in parts])
    scores = np.concatenate(approximate, axis=1)
    _require_finite(parts, scores)
    with one_thread():
        return [
            _settled(parts, query, owners, ordinals, row, k, float(error))
            for query, row, error in zip(queries, scores, errors, strict=True)
        ]


def stored_scores(parts: Sequence[Part[FloatSegment]], query: Floats) -> dict[int, float]:
    """Return the MaxSim of each passage of `parts`, by catalog number."""
    with one_thread():
        scores = {
            int(part.pids[ordinal]): maxsim(query, part.segment.vectors(int(ordinal)))
            for part in parts
            for ordinal in part.ordinals
        }
    _require_finite(parts, np.fromiter(scores.values(), np.float64, len(scores)))
    return scores


def _require_finite(parts: Sequence[Part[FloatSegment]], scores: NDArray[Any]) -> None:
    """Raise unless all scores are finite: NaN has no order, so hits would be missing from the best."""
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
    ordinals: Ordinals,
    scores: Floats,
    k: int,
    error: float,
) -> dict[int, float]:
    if k < len(scores):
        # The error counts twice: the k-th best may be too low by it, and another passage too high.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k] - 2 * error
        chosen = np.flatnonzero(scores >= bar)
    else:
        chosen = np.arange(len(scores))
    settled = {}
    for position in chosen:
        part = parts[int(owners[position])]
        ordinal = int(ordinals[position])
        # Scored again by itself, since a score must not depend on the passages beside this one.
        settled[int(part.pids[ordinal])] = maxsim(query, part.segment.vectors(ordinal))
    return settled


def _scan(part: Part[FloatSegment], queries: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return scores, *Shape:* (queries, passages of the part), and a bound of their error for each query."""
    if is_rounded(part):
        scores, errors = zip(*(rounded_scores(part, query) for query in queries), strict=True)
        return np.stack(scores), np.array(errors, dtype=np.float32) + _FLOAT32_ERROR
    return _float_scores(part, queries), np.full(len(queries), _FLOAT32_ERROR, dtype=np.float32)


def _float_scores(part: Part[FloatSegment], queries: Sequence[Floats]) -> Floats:
    ordinals = part.ordinals
    scores = np.empty((len(queries), len(ordinals)), dtype=np.float32)
    lengths = np.diff(part.segment.offsets)[ordinals]
    for chosen in _blocks(lengths):
        full = chosen[lengths[chosen] > 0]
        for row, query in enumerate(queries):
            scores[row, chosen] = -len(query)
        if not len(full):
            continue
        tokens = _gather(part.segment, ordinals[full])
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


def _gather(segment: FloatSegment, ordinals: Ordinals) -> Floats:
    offsets, tokens = segment.offsets, segment.tokens
    first, last = int(ordinals[0]), int(ordinals[-1])
    start, end = int(offsets[first]), int(offsets[last + 1])
    run = np.asarray(tokens[start:end])
    if last - first + 1 != len(ordinals):
        keep = np.zeros(last - first + 1, dtype=bool)
        keep[ordinals - first] = True
        run = run[np.repeat(keep, np.diff(offsets[first : last + 2]))]
    return run.astype(np.float32)
