"""Any scorer of a user's own, and what the package's own scorers can do beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rerank_integrations.core.cancel import check_wanted
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import strict_refused
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError


class CandidateScorer(Protocol):
    """Scores candidates of several queries in one go."""

    @property
    def scale(self) -> str:
        """What the scores mean: ``maxsim_sum``, ``maxsim_mean``, ``logit``, ``probability`` or ``own``."""
        ...

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` for each of its candidates."""
        ...

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text would be cut; scores nothing.

        `InvalidInputError`, if need be of no candidates at all, from a scorer that cannot tell.
        """
        ...


class PlainScorer:
    """Anything with ``score(query, texts)``, on a scale of its own."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def scale(self) -> str:
        """The scorer's own."""
        return "own"

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Call the scorer once a query."""
        return [
            [Scored(score) for score in _numbers(self._scorer, query, [one.text for one in given])] if given else []
            for query, given in zip(queries, candidates, strict=True)
        ]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Refuse: such a scorer does not say what it reads.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise strict_refused(self._scorer)


def _numbers(scorer: Scorer, query: str, texts: list[str]) -> list[float]:
    """Return the scorer's scores as Python floats.

    Raises
    ------
    InvalidInputError
        If it gives something other than one number a text.
    """
    check_wanted()
    given = scorer.score(query, texts)
    try:
        scores = [float(score) for score in given]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the scorer gave {given!r}; expected a list of numbers") from error
    if len(scores) != len(texts):
        raise InvalidInputError(f"the scorer gave {len(scores)} scores for {len(texts)} texts; expected one each")
    return scores
