"""Hybrid search: ColBERT's and BM25's scores on one scale, added by a weight.

The best passages of both searches are candidates, and each has both of its scores: MaxSim from its stored vectors, BM25
from its terms. A score counts by where it lies between the 100th best (0) and the best (1) of its own search; of BM25
between 0, a passage without a word of the query, and the best. So neither a passage's value nor the order of two
passages depends on how many are returned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rerank_integrations.core.checks import is_number
from rerank_integrations.core.types import RankingNote
from rerank_integrations.errors import InvalidInputError

SEARCH_TYPES = ("colbert", "bm25", "hybrid")
# BM25's share where nothing was fitted: docs/how-to/hybrid_search.md says what it was chosen by.
DEFAULT_BM25_WEIGHT = 0.3
# Candidates of each search, and the rank whose MaxSim counts as 0.
DEPTH = 100


@dataclass(frozen=True)
class HybridParts:
    """Both scores of a candidate, as they are and as they count."""

    colbert_score: float
    bm25_score: float
    colbert_part: float
    bm25_part: float

    def score(self, bm25_weight: float) -> float:
        """Return the score of a hybrid search, at most 1."""
        return (1 - bm25_weight) * self.colbert_part + bm25_weight * self.bm25_part

    def note(self, bm25_weight: float) -> RankingNote:
        """Return the keys that a hit of a hybrid search has in its note."""
        return {
            "search_type": "hybrid",
            "colbert_score": self.colbert_score,
            "bm25_score": self.bm25_score,
            "bm25_weight": bm25_weight,
        }


def candidate_parts(
    colbert: Mapping[int, float], bm25: Mapping[int, float], found_by_colbert: Collection[int]
) -> dict[int, HybridParts]:
    """Return both scores of each candidate.

    Parameters
    ----------
    colbert, bm25
        The scores of the same candidates, by catalog number.
    found_by_colbert
        The candidates that ColBERT's own search has returned.
    """
    best_first = sorted((colbert[pid] for pid in found_by_colbert), reverse=True)
    high = best_first[0] if best_first else 0.0
    span = high - best_first[min(DEPTH, len(best_first)) - 1] if best_first else 0.0
    top = max(bm25.values(), default=0.0)
    return {
        pid: HybridParts(score, bm25[pid], 1 + (score - high) / (span or 1.0), bm25[pid] / (top or 1.0))
        for pid, score in colbert.items()
    }


def require_search_type(value: object) -> str:
    """Return `value`, or raise `InvalidInputError` unless it names a kind of search."""
    if value not in SEARCH_TYPES:
        raise InvalidInputError(f"search_type is {value!r}; expected 'colbert', 'bm25' or 'hybrid'")
    return str(value)


def require_weight(value: object, search_type: str = "hybrid") -> float | None:
    """Return `value` as a Python float; ``None`` stays.

    Raises
    ------
    InvalidInputError
        Unless it is ``None`` or a number from 0 to 1, or if the search has nothing to weigh.
    """
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 1:
        raise InvalidInputError(f"bm25_weight is {value!r}; expected a number from 0 to 1, or None")
    if search_type != "hybrid":
        raise InvalidInputError(f"bm25_weight is {value!r} with search_type={search_type!r}; expected it with 'hybrid'")
    return float(value)
