"""PLAID search of the segments of one codec: centroid scores, candidates, approximate scores, then MaxSim.

Every stage runs in the caller's thread, so that any number of callers share the cores; only work of many milliseconds
is spread over the pool (`concurrency.lanes`). A passage's score depends on its codes and the query alone.
"""

from __future__ import annotations

import logging
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.cpu_query import CpuQuery
from rerank_integrations.core.index.plaid.search_options import SearchOptions
from rerank_integrations.core.index.storage.segments import Group, Ordinals, Part, PlaidSegment
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import score_of_best
from rerank_integrations.errors import IndexFormatError

_LOG = logging.getLogger(__name__)

# The centroid stage reads a token in about a nanosecond: up to this many, reading all of them takes less time than
# reading the lists of some.
_SCANNED_TOKENS = 1 << 19
_MAX_PROBES = 64
_PROBES = 3
# For a million tokens at 2 bits. The number of passages that are nearly as good grows with the root of the tokens.
_CANDIDATES = 160
_CANDIDATES_PER_HIT = 8
# The last but one stage looks only at the tokens near each query token's best centroid, and keeps this many passages
# for the last. Measured (benchmarks/index.py): a third of the time, and no worse recall than all tokens of all
# candidates.
_FINALISTS = 32
_FINALISTS_PER_HIT = 3


class PreparedQuery(Protocol):
    """A query's tables, which choose and score passages: `CpuQuery`, or `torch_stages.TorchQuery` on a GPU."""

    def finalists(self, group: Group, probes: int | None, candidates: int, finalists: int, /) -> list[Ordinals]:
        """Choose those passages of each part whose MaxSim is worth computing.

        Parameters
        ----------
        probes
            Consider only passages near this many of the best centroids per query token; ``None`` for all passages.
        candidates, finalists
            How many passages to keep by their centroids, and how many of those by their approximate MaxSim.
        """
        ...

    def scores(self, segment: PlaidSegment, ordinals: Ordinals, /) -> NDArray[np.float64]:
        """Return the MaxSim of the passages' decompressed vectors."""
        ...


def search_group(group: Group, query: Floats, k: int, options: SearchOptions, device: str = "cpu") -> dict[int, float]:
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
    if device != "cpu":
        import torch

        from rerank_integrations.core.index.plaid.torch_stages import TorchQuery

        try:
            return _searched(group, TorchQuery(group.codec, query, device), len(query), k, options)
        except torch.cuda.OutOfMemoryError as error:
            _LOG.warning("searching on the CPU: %s", error)
    return _searched(group, CpuQuery(group.codec, query), len(query), k, options)


def _searched(
    group: Group, query: PreparedQuery, query_tokens: int, k: int, options: SearchOptions
) -> dict[int, float]:
    scored = [part.ordinals for part in group.parts]
    candidates = max(k, options.n_candidates or _candidates(group, k))
    if not options.exact and query_tokens and group.searchable > candidates:
        try:
            finalists = max(_FINALISTS, _FINALISTS_PER_HIT * k)
            scored = query.finalists(group, options.n_probe or _probes(group), candidates, finalists)
        except IndexError as error:
            names = ", ".join(part.segment.name for part in group.parts)
            raise IndexFormatError(f"of the segments {names} one is damaged: {error}") from error
    scores = [_scores(part, ordinals, query) for part, ordinals in zip(group.parts, scored, strict=True)]
    bar = score_of_best(scores, k)
    best: dict[int, float] = {}
    for part, ordinals, row in zip(group.parts, scored, scores, strict=True):
        reached = row >= bar
        best.update(zip(part.pids[ordinals[reached]].tolist(), row[reached].tolist(), strict=True))
    return best


def _scores(part: Part[PlaidSegment], ordinals: Ordinals, query: PreparedQuery) -> NDArray[np.float64]:
    if not len(ordinals):
        return np.empty(0)
    try:
        return query.scores(part.segment, ordinals)
    except IndexError as error:
        raise IndexFormatError(f"segment {part.segment.name} is damaged: {error}") from error


def stored_scores(group: Group, query: Floats, device: str = "cpu") -> dict[int, float]:
    """Return the MaxSim of each passage of the group, by catalog number."""
    return search_group(group, query, max(1, group.searchable), SearchOptions(exact=True), device)


def _candidates(group: Group, k: int) -> int:
    """Return how many candidates to keep by their centroids."""
    # More bits distinguish more of the candidates.
    usual = _CANDIDATES * max(1, group.codec.nbits - 1) * max(1.0, math.sqrt(group.tokens / (1 << 20)))
    return max(_CANDIDATES_PER_HIT * k, int(usual))


def _probes(group: Group) -> int | None:
    """Return how many centroids to probe per query token; ``None`` to scan all tokens where they are few enough."""
    if group.searchable_tokens <= _SCANNED_TOKENS:
        return None
    # A filter thins the lists out, so in proportion more of them are read.
    probes = math.ceil(_PROBES * group.passages / group.searchable)
    return probes if probes <= _MAX_PROBES else None
