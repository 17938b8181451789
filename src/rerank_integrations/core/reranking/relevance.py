"""Searches whose scores are relevances from 0 to 1, and searches for passages that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_integrations.core.checks import is_number, require_texts
from rerank_integrations.core.concurrency.blas import one_thread
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.maxsim import Floats, maxsim
from rerank_integrations.core.ranking import require_count
from rerank_integrations.core.types import Hit, Where
from rerank_integrations.errors import InvalidInputError


def search_with_relevance(
    index: ColBERTIndex, query: str, k: int, *, where: Where | None = None
) -> list[tuple[Hit, float]]:
    """Return the best `k` passages, each with its relevance: its mean MaxSim, where a negative mean counts as 0."""
    hits, tokens = _search(index, query, k, where)
    return [(hit, min(1.0, max(0.0, hit.score / tokens)) if tokens else 0.0) for hit in hits]


def hits_above(hits: Sequence[Hit], threshold: float | None) -> list[Hit]:
    """Return the hits of at least this score (inclusive), in their order; all of them for ``None``."""
    return [hit for hit in hits if threshold is None or hit.score >= threshold]


def search_diverse(
    index: ColBERTIndex, query: str, k: int, *, fetch_k: int, lambda_mult: float, where: Where | None = None
) -> list[Hit]:
    """Return `k` passages by maximal marginal relevance (Carbonell and Goldstein, 1998).

    The first hit is the best one. Each further hit has the largest
    ``lambda_mult * relevance - (1 - lambda_mult) * similarity``: relevance is the passage's mean MaxSim by the query,
    similarity the largest `similarity` of its stored vectors with those of a passage that was chosen before.

    Parameters
    ----------
    fetch_k
        How many passages to choose from; at least `k` are searched for.
    lambda_mult
        From 0 (only differences count) to 1 (the order of the search).
    """
    if not is_number(lambda_mult) or not 0 <= lambda_mult <= 1:
        raise InvalidInputError(f"lambda_mult is {lambda_mult!r}; expected a number from 0 to 1")
    most = max(require_count(k, "k"), require_count(fetch_k, "fetch_k"))
    hits, tokens = _search(index, query, 0 if k == 0 else most, where)
    vectors = index.stored_vectors(hit.id for hit in hits)
    # A passage that was deleted since the search has no vectors.
    hits = [hit for hit in hits if hit.id in vectors]
    relevances = [hit.score / max(1, tokens) for hit in hits]
    # The products are small: more threads would only wait for each other.
    with one_thread():
        order = diverse_order(relevances, [vectors[hit.id] for hit in hits], k, float(lambda_mult))
    return [hits[position] for position in order]


def diverse_order(relevances: Sequence[float], vectors: Sequence[Floats], k: int, lambda_mult: float) -> list[int]:
    """Return the positions of `k` passages in the order in which maximal marginal relevance chooses them.

    Of equal values the first position wins.
    """
    nearest = [-1.0] * len(relevances)
    rest = list(range(len(relevances)))
    chosen: list[int] = []
    while rest and len(chosen) < k:
        weight = lambda_mult if chosen else 1.0
        best = max(rest, key=lambda position: weight * relevances[position] - (1 - weight) * nearest[position])
        chosen.append(best)
        rest.remove(best)
        for position in rest:
            nearest[position] = max(nearest[position], similarity(vectors[position], vectors[best]))
    return chosen


def similarity(first: Floats, second: Floats) -> float:
    """Return the mean MaxSim of two passages, averaged over both directions, so that it is symmetric; -1 to 1.

    A passage without tokens is like another one without tokens, and unlike any other.
    """
    if not len(first) or not len(second):
        return 1.0 if len(first) == len(second) else -1.0
    return (maxsim(first, second) / len(first) + maxsim(second, first) / len(second)) / 2


def _search(index: ColBERTIndex, query: str, k: int, where: Where | None) -> tuple[list[Hit], int]:
    """Return the hits, and how many query tokens their scores are sums over."""
    require_texts([query], "query")
    if not query.strip():
        # Checks the other arguments.
        return index.search(query, k, where=where), 0
    encoded = index.encode_query(query)
    return index.search_encoded(encoded, k, where=where), len(encoded)
