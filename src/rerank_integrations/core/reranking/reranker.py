"""One stage of reranking: score, order, threshold, cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rerank_integrations.core.checks import require_texts
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel
from rerank_integrations.core.ranking import best_first, require_text
from rerank_integrations.core.reranking.candidates import Candidate, Ranked, Scored
from rerank_integrations.core.reranking.colbert_scorer import ColBERTScorer
from rerank_integrations.core.reranking.options import RerankOptions
from rerank_integrations.core.reranking.scorers import CandidateScorer, CrossEncoderScorer, PlainScorer
from rerank_integrations.errors import InvalidInputError

# Candidates scored in one go: enough for full batches, their vectors (some 60 KB each) no burden.
_AT_ONCE = 1024


class Reranker:
    """Puts candidates in the order of a scorer; any number of threads may use it.

    Parameters
    ----------
    scorer
        What scores.
    top_n
        How many to keep; ``None`` keeps all.
    threshold
        Keep only scores of at least this (inclusive).
    max_candidates
        Only so many are scored, the first ones; the others are left out. ``None`` scores all.
    strict
        Whether a text that would be cut is an error, before anything is scored.

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind, or `strict` with a scorer that does not say what it cuts.
    """

    def __init__(
        self,
        scorer: CandidateScorer,
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        max_candidates: int | None = None,
        strict: bool = False,
    ) -> None:
        self._options = RerankOptions(top_n=top_n, threshold=threshold, max_candidates=max_candidates, strict=strict)
        self._scorer = scorer
        self._require_strict_scorer()

    @classmethod
    def with_options(cls, scorer: CandidateScorer, options: RerankOptions) -> Reranker:
        """Return a reranker with all of `options`; the scorer's own are those that `scorer` was constructed with."""
        reranker = cls(scorer)
        reranker._options = options
        reranker._require_strict_scorer()
        return reranker

    def _require_strict_scorer(self) -> None:
        if self._options.strict:
            self._scorer.require_whole([], [])

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Return the candidates that are kept, best first; equal ones in the order they came.

        A cross-encoder's are ordered by their logits, so scores of 1.0 that are rounded keep the order of what they
        were rounded from.

        Raises
        ------
        InvalidInputError
            For a query without text, or a score that is NaN.
        TextTooLongError
            If `strict`, for a text that the model would cut.
        """
        return self.rank_many([query], [candidates])[0]

    def rank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank` for several queries, each with candidates of its own, in batches of several queries' texts."""
        if len(queries) != len(candidates):
            raise InvalidInputError(
                f"{len(queries)} queries with {len(candidates)} lists of candidates; expected one each"
            )
        for query in queries:
            require_query(query)
        given = [list(each[: self._options.max_candidates]) if self._options.top_n != 0 else [] for each in candidates]
        if self._options.strict:
            self._scorer.require_whole(queries, given)
        scored = score_in_groups(self._scorer, queries, given)
        return [self._ordered(each, scores) for each, scores in zip(given, scored, strict=True)]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score a text, in their order and without threshold or cut; higher is better."""
        require_texts(texts)
        given = [Candidate(None, text) for text in texts]
        return [one.score for one in self._scorer.score_many([query], [given])[0]]

    def _ordered(self, candidates: Sequence[Candidate], scores: Sequence[Scored]) -> list[Ranked]:
        for place, (candidate, one) in enumerate(zip(candidates, scores, strict=True)):
            if math.isnan(one.score):
                named = "" if candidate.id is None else f" ({candidate.id!r})"
                raise InvalidInputError(f"the score of passage number {place}{named} is NaN; expected a number")
        order = best_first(
            [one.score for one in scores],
            range(len(scores)),
            top_n=self._options.top_n,
            threshold=self._options.threshold,
            keys=[one.order_key for one in scores],
        )
        scale = {"score_scale": self._scorer.scale} if order else {}
        return [
            Ranked(place, score, {**candidates[place].came(place), **scale, **scores[place].note()})
            for place, score in order
        ]


def require_query(query: str) -> None:
    """Raise `InvalidInputError` unless `query` is a string with text in it that UTF-8 can write."""
    require_text(query, "query")
    require_texts([query], "query")


def score_in_groups(
    scorer: CandidateScorer, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]
) -> list[list[Scored]]:
    """Do as `CandidateScorer.score_many`, some queries at a time: the vectors of all texts need not fit in memory."""
    scored: list[list[Scored]] = []
    first = 0
    while first < len(queries):
        last, count = first, 0
        while last < len(queries) and (last == first or count + len(candidates[last]) <= _AT_ONCE):
            count += len(candidates[last])
            last += 1
        scored += scorer.score_many(queries[first:last], candidates[first:last])
        first = last
    return scored


def as_candidate_scorer(scorer: Any, *, window: int | None = None, stride: int | None = None) -> CandidateScorer:
    """Return what scores candidates as `scorer` does: a model, anything with ``score(query, texts)``, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of these; for a `window` with a scorer of one's own, or on top of a `ColBERTScorer`.
    """
    if isinstance(scorer, ColBERTModel):
        return ColBERTScorer(scorer, window=window, stride=stride)
    if isinstance(scorer, CrossEncoderModel):
        return CrossEncoderScorer(scorer, window=window, stride=stride)
    if window is not None or stride is not None:
        raise InvalidInputError(
            f"window is {window!r} and stride {stride!r} with a scorer of type {type(scorer).__name__}; "
            "expected a ColBERTModel or a CrossEncoderModel"
        )
    if callable(getattr(scorer, "score_many", None)) and callable(getattr(scorer, "require_whole", None)):
        known: CandidateScorer = scorer
        return known
    if callable(getattr(scorer, "score", None)):
        return PlainScorer(scorer)
    raise InvalidInputError(
        f"the scorer is of type {type(scorer).__name__}; expected a model or anything with score(query, texts)"
    )
