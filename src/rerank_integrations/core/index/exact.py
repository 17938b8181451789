"""Exact search: MaxSim of a query over every stored token of every passage that may be found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.blas import one_thread
from rerank_integrations.core.index.rounded import is_rounded, rounded_scores
from rerank_integrations.core.index.segments import FloatSegment
from rerank_integrations.core.index.snapshot import Part, Places
from rerank_integrations.core.maxsim import Floats, maxsim, maxsim_block
from rerank_integrations.errors import IndexFormatError, InvalidInputError

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
