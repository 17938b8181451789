"""One stage of reranking: score, order, threshold, cut."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import require_texts
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel
from rerank_integrations.core.ranking import best_first, require_text
from rerank_integrations.core.reranking.calibration import Calibration
from rerank_integrations.core.reranking.candidates import Candidate, Ranked, Scored, distinct_positions
from rerank_integrations.core.reranking.colbert_scorer import ColBERTScorer
from rerank_integrations.core.reranking.options import RerankOptions
from rerank_integrations.core.reranking.scorers import (
    AsyncCandidateScorer,
    CandidateScorer,
    CrossEncoderScorer,
    ListwiseCandidateScorer,
    PlainScorer,
)
from rerank_integrations.core.types import ListwiseScorer, RankingNote, Scorer, ScoreScale
from rerank_integrations.errors import InvalidInputError

# Candidates scored in one call: enough for full batches, and their vectors (some 60 KB each) fit in memory.
_MAX_CANDIDATES_PER_CALL = 1024


class Reranker:
    """Reranker of candidates by one scorer; any number of threads may use it.

    Parameters
    ----------
    scorer
        The scorer of the candidates.
    top_n
        How many to keep; ``None`` keeps all.
    threshold
        Keep only scores of at least this (inclusive).
    max_candidates
        Only the first so many are scored, the others omitted; ``None`` scores all.
    strict
        Whether a text that would be cut is an error, before anything is scored.
    calibration
        From `fit_calibration`, of the same scorer: scores, thresholds and notes are probabilities then. The order is
        that of the scorer's own scores.

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind, `strict` with a scorer that does not report what it cuts, or more
        `max_candidates` than a listwise scorer takes together.
    """

    def __init__(
        self,
        scorer: CandidateScorer,
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        max_candidates: int | None = None,
        strict: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        self._options = RerankOptions(
            top_n=top_n, threshold=threshold, max_candidates=max_candidates, strict=strict, calibration=calibration
        )
        self._scorer = scorer
        self._require_fitting_scorer()

    @classmethod
    def with_options(cls, scorer: CandidateScorer, options: RerankOptions) -> Reranker:
        """Return a reranker with all of `options`; the scorer's own are those that `scorer` was constructed with."""
        reranker = cls(scorer)
        reranker._options = options
        reranker._require_fitting_scorer()
        return reranker

    def _require_fitting_scorer(self) -> None:
        if self._options.strict:
            self._scorer.require_whole([], [])
        if isinstance(self._scorer, ListwiseCandidateScorer):
            self._scorer.require_count(self._options.max_candidates or 0, "max_candidates")

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Return the candidates that are kept, best first; of equal scores, in the order given.

        A candidate with the id and the text of an earlier one is omitted, before `max_candidates` are counted.

        A cross-encoder's candidates are ordered by their logits, so those whose scores round to 1.0 keep their order.

        Raises
        ------
        InvalidInputError
            For a query without text, or a score that is NaN.
        TextTooLongError
            If `strict`, for a text that the model would cut.
        """
        return self.rank_many([query], [candidates])[0]

    def rank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank` for several queries, each with candidates of its own; batches mix the texts of all queries."""
        chosen, places = self._chosen(queries, candidates)
        with telemetry.reranking("Reranker.rank", queries, chosen, self, self._options.top_n) as span:
            ranked = self._all_ordered(chosen, places, score_in_groups(self._scorer, queries, chosen))
            return span.ranked(candidates, ranked)

    @property
    def name(self) -> str:
        """The name that traces show: that of the scorer's model, or else of the scorer's class."""
        return str(getattr(self._scorer, "name", type(self._scorer).__name__))

    @property
    def needs_thread(self) -> bool:
        """Whether async callers must run `rank_many` on a thread; else they await `arank_many`."""
        return not isinstance(self._scorer, AsyncCandidateScorer)

    async def arank_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Ranked]]:
        """Do as `rank_many` off the event loop: on a thread, unless the scorer waits for a service by itself."""
        if not isinstance(self._scorer, AsyncCandidateScorer):
            return await run_blocking(self.rank_many, queries, candidates)
        chosen, places = self._chosen(queries, candidates)
        with telemetry.reranking("Reranker.rank", queries, chosen, self, self._options.top_n) as span:
            scored = [
                scores
                for group in _groups(chosen)
                for scores in await self._scorer.ascore_many(queries[group], chosen[group])
            ]
            return span.ranked(candidates, self._all_ordered(chosen, places, scored))

    async def arank(self, query: str, candidates: Sequence[Candidate]) -> list[Ranked]:
        """Do as `rank` off the event loop, as `arank_many` does."""
        return (await self.arank_many([query], [candidates]))[0]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score per text, in their order and without threshold or cut; higher is better."""
        require_texts(texts)
        candidates = [Candidate(None, text) for text in texts]
        return [self._shown(scored) for scored in self._scorer.score_many([query], [candidates])[0]]

    def _shown(self, scored: Scored) -> float:
        calibration = self._options.calibration
        return scored.score if calibration is None else calibration.probability(scored.score)

    def _chosen(
        self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]
    ) -> tuple[list[list[Candidate]], list[list[int]]]:
        """Return the candidates that are scored and their places among all, after all checks."""
        if len(queries) != len(candidates):
            raise InvalidInputError(
                f"{len(queries)} queries with {len(candidates)} lists of candidates; expected one each"
            )
        for query in queries:
            require_query(query)
        limit = 0 if self._options.top_n == 0 else self._options.max_candidates
        places = [distinct_positions(of_query)[:limit] for of_query in candidates]
        chosen = [
            [of_query[place] for place in of_places] for of_query, of_places in zip(candidates, places, strict=True)
        ]
        if self._options.strict:
            self._scorer.require_whole(queries, chosen)
        return chosen, places

    def _all_ordered(
        self,
        candidates: Sequence[Sequence[Candidate]],
        places: Sequence[Sequence[int]],
        scores: Sequence[Sequence[Scored]],
    ) -> list[list[Ranked]]:
        return [self._ordered(*of_query) for of_query in zip(candidates, places, scores, strict=True)]

    def _ordered(
        self, candidates: Sequence[Candidate], places: Sequence[int], scores: Sequence[Scored]
    ) -> list[Ranked]:
        for candidate, place, scored in zip(candidates, places, scores, strict=True):
            if math.isnan(scored.score):
                named = "" if candidate.id is None else f" ({candidate.id!r})"
                raise InvalidInputError(f"the score of passage number {place}{named} is NaN; expected a number")
        order = best_first(
            [self._shown(scored) for scored in scores],
            places,
            top_n=self._options.top_n,
            threshold=self._options.threshold,
            keys=[scored.order_key for scored in scores],
        )
        # Asking for the scale may load the model.
        scale: RankingNote = {"score_scale": self._scale()} if order else {}
        return [
            Ranked(
                places[position],
                score,
                {**candidates[position].retrieval_note(places[position]), **scale, **scores[position].note()},
            )
            for position, score in order
        ]

    def _scale(self) -> ScoreScale:
        return self._scorer.scale if self._options.calibration is None else "probability"


def require_query(query: str) -> None:
    """Raise `InvalidInputError` unless `query` is a string with some text that UTF-8 can encode."""
    require_text(query, "query")
    require_texts([query], "query")


def score_in_groups(
    scorer: CandidateScorer, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]
) -> list[list[Scored]]:
    """Do as `CandidateScorer.score_many`, some queries per call, so that memory need not hold all texts' vectors."""
    return [scores for group in _groups(candidates) for scores in scorer.score_many(queries[group], candidates[group])]


def _groups(candidates: Sequence[Sequence[Candidate]]) -> Iterator[slice]:
    """Yield the queries of each call: one at least, and as many as have few enough candidates."""
    first = 0
    while first < len(candidates):
        last, count = first, 0
        while last < len(candidates) and (last == first or count + len(candidates[last]) <= _MAX_CANDIDATES_PER_CALL):
            count += len(candidates[last])
            last += 1
        yield slice(first, last)
        first = last


def as_candidate_scorer(
    scorer: Scorer | ListwiseScorer | CandidateScorer, *, window: int | None = None, stride: int | None = None
) -> CandidateScorer:
    """Return a scorer of candidates for a model or a scorer of the user's own, or `scorer` itself.

    Of an object with both ``score_list`` and ``score`` the former is called.

    Raises
    ------
    InvalidInputError
        If it is none of these; for a `window` with a user's own scorer, or on top of a `ColBERTScorer`.
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
        return cast("CandidateScorer", scorer)
    if callable(getattr(scorer, "score_list", None)):
        return ListwiseCandidateScorer(cast("ListwiseScorer", scorer))
    if callable(getattr(scorer, "score", None)):
        return PlainScorer(cast("Scorer", scorer))
    raise InvalidInputError(
        f"the scorer is of type {type(scorer).__name__}; expected a model or anything with score(query, texts) or "
        "score_list(query, texts)"
    )
