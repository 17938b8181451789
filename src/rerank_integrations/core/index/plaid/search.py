"""PLAID search of the segments of one codec: centroid scores, candidates, approximate scores, then MaxSim.

Every stage runs in the caller's thread, so that any number of callers share the cores; only work of many milliseconds
is spread over the pool. A passage's score depends on its codes and the query alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.effort import Effort
from rerank_integrations.core.index.plaid import kernels
from rerank_integrations.core.index.plaid.codec import Codec
from rerank_integrations.core.index.plaid.pool import in_parts, turns
from rerank_integrations.core.index.plaid.simd import BYTES, FLOATS
from rerank_integrations.core.index.segments import PlaidSegment
from rerank_integrations.core.index.snapshot import Group, Part, Places
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError

_LOG = logging.getLogger(__name__)

# The centroid stage reads a token in about a nanosecond: up to here, all of them sooner than lists of some.
_SCANNED_TOKENS = 1 << 19
_MOST_PROBES = 64
# Passages below which a stage is not worth another thread's start.
_SHARED_PASSAGES = 1 << 13
_SHARED_CENTROIDS = 1 << 13
_ALL_TOKENS = 255
_PROBES = 3
# For a million tokens at 2 bits; more passages that are nearly as good come with the root of the tokens.
_CANDIDATES = 128
_CANDIDATES_A_HIT = 8
# The last but one stage looks at the tokens near each query token's best centroid only, and keeps so many passages for
# the last. Measured (benchmarks/index.py): a third of the time, and no worse recall than all tokens of all candidates.
_SLACK = 3
_FINALISTS = 32
_FINALISTS_A_HIT = 3


class Stages(Protocol):
    """What scores passages for a query: `_Query`, or `torch_stages.TorchQuery` on a GPU."""

    def approximate(self, segment: PlaidSegment, places: Places, /) -> NDArray[np.float64]:
        """Score passages by their centroids alone, in any unit."""
        ...

    def nearly(self, segment: PlaidSegment, places: Places, /) -> NDArray[np.float64]:
        """MaxSim of the passages' decompressed vectors, or nearly that."""
        ...

    def scores(self, segment: PlaidSegment, places: Places, /) -> NDArray[np.float64]:
        """MaxSim of the passages' decompressed vectors."""
        ...

    def probed(self, count: int, /) -> NDArray[np.uint8]:
        """Mark the `count` best centroids of each query token."""
        ...


def search_group(group: Group, query: Floats, k: int, effort: Effort, device: str = "cpu") -> dict[int, float]:
    """Return the scores of the passages that could be among the best `k`.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    device
        ``"cpu"``, or a torch device; where its memory is too small for the segments, the CPU searches.

    Returns
    -------
    dict
        Catalog number to MaxSim of the decompressed vectors: at least ``min(k, passages)``, and all that tie with the
        last.

    Raises
    ------
    IndexFormatError
        If a segment's files are damaged.
    """
    # No more at once than there are cores: more would only take each other's caches and the interpreter.
    with turns():
        return _on_device(group, query, k, effort, device)


def _on_device(group: Group, query: Floats, k: int, effort: Effort, device: str) -> dict[int, float]:
    if device != "cpu":
        import torch

        from rerank_integrations.core.index.plaid.torch_stages import TorchQuery

        try:
            return _searched(group, TorchQuery(group.codec, query, device), len(query), k, effort)
        except torch.cuda.OutOfMemoryError as error:
            _LOG.warning("searching on the CPU: %s", error)
    return _searched(group, _Query(group.codec, query), len(query), k, effort)


def _searched(group: Group, asked: Stages, query_tokens: int, k: int, effort: Effort) -> dict[int, float]:
    parts = group.parts
    found = [part.places for part in parts]
    if not effort.exact and query_tokens:
        wanted = max(k, effort.n_candidates or _wanted(group, k))
        if sum(map(len, found)) > wanted:
            probes = effort.n_probe or _probes(parts)
            found = _best(parts, _candidates(asked, parts, probes, wanted), asked.approximate, wanted)
            found = _best(parts, found, asked.nearly, max(_FINALISTS, _FINALISTS_A_HIT * k))
    scores = _scored(parts, found, asked.scores)
    bar = _bar(np.concatenate([np.empty(0), *scores]), k)
    return {
        int(part.pids[place]): float(score)
        for part, places, row in zip(parts, found, scores, strict=True)
        for place, score in zip(places[row >= bar], row[row >= bar], strict=True)
    }


def stored_scores(group: Group, query: Floats, device: str = "cpu") -> dict[int, float]:
    """Return the MaxSim of each passage of the group, by catalog number."""
    everything = max(1, sum(len(part.places) for part in group.parts))
    return search_group(group, query, everything, Effort(exact=True), device)


class _Query:
    """A query's tables for one codec."""

    def __init__(self, codec: Codec, query: Floats) -> None:
        self._codec = codec
        self._count = len(query)
        self._blocks = _columns(codec.rotate(query))
        padded = -(-len(codec.centroids) // 4) * 4
        centroids = codec.padded_centroids
        query_dim = codec.centroids.shape[1]
        width = self._blocks.shape[0] * FLOATS
        self._scores = np.empty((padded, width), dtype=np.float32)
        self._levels = np.zeros((padded, -(-width // BYTES) * BYTES), dtype=np.uint8)
        ceiling = np.float32(max(float(np.linalg.norm(query, axis=1).max(initial=0)) * codec.longest_centroid, 1e-6))
        flat = self._blocks.reshape(-1)

        def score(start: int, end: int) -> None:
            # Whole groups of four, as the kernel takes them.
            rows = slice(start // 4 * 4, end // 4 * 4)
            some = centroids[rows.start * query_dim : rows.stop * query_dim]
            kernels.centroid_scores(some, flat, ceiling, self._scores[rows], self._levels[rows])

        in_parts(score, padded, _SHARED_CENTROIDS)

    def approximate(self, segment: PlaidSegment, places: Places) -> NDArray[np.float64]:
        """Score passages by their centroids, in steps of 1/255 of the largest possible score."""
        out = np.empty(len(places), dtype=np.float64)

        def score(start: int, end: int) -> None:
            kernels.approximate(segment.codes, segment.offsets, places[start:end], self._levels, out[start:end])

        in_parts(score, len(places), _SHARED_PASSAGES)
        return out

    def nearly(self, segment: PlaidSegment, places: Places) -> NDArray[np.float64]:
        """MaxSim over the passages' tokens of promising centroids."""
        return self.scores(segment, places, _SLACK)

    def scores(self, segment: PlaidSegment, places: Places, slack: int = _ALL_TOKENS) -> NDArray[np.float64]:
        """MaxSim of the passages' decompressed vectors."""
        out = np.zeros(len(places), dtype=np.float64)
        if not len(places):
            return out
        codec = self._codec
        table = np.empty(codec.residual_bytes * 256 * FLOATS, dtype=np.float32)
        for block, columns in enumerate(self._blocks):
            first = block * FLOATS
            lanes = min(FLOATS, self._count - first)
            kernels.residual_table(codec.codebook.reshape(-1), columns.reshape(-1), table)

            def score(start: int, end: int, first: int = first, lanes: int = lanes) -> None:
                kernels.add_maxsim(
                    segment.codes,
                    segment.residuals,
                    segment.scales,
                    np.float32(codec.step),
                    codec.whole,
                    segment.offsets,
                    places[start:end],
                    self._scores,
                    self._levels,
                    slack,
                    first,
                    lanes,
                    table,
                    out[start:end],
                )

            in_parts(score, len(places), _SHARED_PASSAGES)
        return out

    def probed(self, count: int) -> NDArray[np.uint8]:
        """Mark the `count` best centroids of each query token."""
        centroids = len(self._codec.centroids)
        chosen = np.zeros(centroids, dtype=np.uint8)
        kernels.best_centroids(self._scores[:centroids], self._count, min(count, centroids), chosen)
        return chosen


def _columns(query: Floats) -> Floats:
    """Return the query's tokens as columns, *Shape:* (blocks, dim, 16)."""
    blocks = -(-len(query) // FLOATS)
    padded = np.zeros((blocks * FLOATS, query.shape[1]), dtype=np.float32)
    padded[: len(query)] = query
    return np.ascontiguousarray(padded.reshape(blocks, FLOATS, query.shape[1]).transpose(0, 2, 1))


def _wanted(group: Group, k: int) -> int:
    """Return how many candidates to score exactly."""
    tokens = sum(int(part.segment.offsets[-1]) for part in group.parts)
    # More bits tell more of the candidates apart.
    usual = _CANDIDATES * max(1, group.codec.nbits - 1) * max(1.0, np.sqrt(tokens / (1 << 20)))
    return max(_CANDIDATES_A_HIT * k, int(usual))


def _probes(parts: Sequence[Part[PlaidSegment]]) -> int | None:
    """Return how many centroids to probe a query token; ``None`` to scan, where few enough tokens may be found."""
    if sum(part.tokens for part in parts) <= _SCANNED_TOKENS:
        return None
    # A filter thins the lists out: look into as many more of them.
    kept = sum(len(part.places) for part in parts) / sum(len(part.segment.offsets) - 1 for part in parts)
    probes = int(np.ceil(_PROBES / kept))
    return probes if probes <= _MOST_PROBES else None


def _candidates(asked: Stages, parts: Sequence[Part[PlaidSegment]], probes: int | None, wanted: int) -> list[Places]:
    everything = [part.places for part in parts]
    if probes is None:
        return everything
    chosen = asked.probed(probes)
    found = [_listed(part, chosen) for part in parts]
    # Too few were met: all of them, by their centroids.
    return found if sum(map(len, found)) >= wanted else everything


def _listed(part: Part[PlaidSegment], chosen: NDArray[np.uint8]) -> Places:
    segment = part.segment
    if segment.list_starts is None or segment.listed is None:
        return part.places
    marks = np.zeros(len(segment.offsets) - 1, dtype=np.bool_)
    with _reading(segment):
        kernels.mark_listed(chosen, segment.list_starts, segment.listed, marks)
    return part.places[marks[part.places]]


Score: TypeAlias = Callable[[PlaidSegment, Places], NDArray[np.float64]]


def _scored(parts: Sequence[Part[PlaidSegment]], found: Sequence[Places], score: Score) -> list[NDArray[np.float64]]:
    scores = []
    for part, places in zip(parts, found, strict=True):
        with _reading(part.segment):
            scores.append(score(part.segment, places))
    return scores


@contextlib.contextmanager
def _reading(segment: PlaidSegment) -> Iterator[None]:
    try:
        yield
    except IndexError as error:
        raise IndexFormatError(f"segment {segment.name} is damaged: {error}") from error


def _best(
    parts: Sequence[Part[PlaidSegment]],
    found: Sequence[Places],
    score: Score,
    count: int,
) -> list[Places]:
    if sum(map(len, found)) <= count:
        return list(found)
    scores = _scored(parts, found, score)
    bar = _bar(np.concatenate(scores), count)
    return [places[row >= bar] for places, row in zip(found, scores, strict=True)]


def _bar(scores: NDArray[np.float64], count: int) -> float:
    """Return the score that the best `count` reach."""
    if len(scores) <= count:
        return -np.inf
    return float(np.partition(scores, len(scores) - count)[len(scores) - count])
