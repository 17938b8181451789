"""Scorers of candidates: the protocol, one for cross-encoders, and two for scorers of a user's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable

from rerank_integrations.core.checks import whole_number
from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.models.cross_encoder import PairScore
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import require_none_cut, strict_refused
from rerank_integrations.core.reranking.windows import Span, best_window, require_windows
from rerank_integrations.core.types import ListwiseScorer, Scorer, ScoreScale
from rerank_integrations.errors import InvalidInputError


class CrossEncoderScorer:
    """Scorer of candidates by a cross-encoder; any number of threads may use it.

    Parameters
    ----------
    model
        The model that reads query and text together.
    window, stride
        In tokens of the text. With a `window`, a longer text is scored by overlapping windows, and the best one counts.
        A window is at most as long as what the model has room for beside the query. The `stride` is half a window by
        default.

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind.
    """

    def __init__(self, model: CrossEncoderModel, *, window: int | None = None, stride: int | None = None) -> None:
        self._windows = require_windows(window, stride)
        self._model = model

    @property
    def name(self) -> str:
        """The model's name, for traces."""
        return self._model.name

    @property
    def scale(self) -> ScoreScale:
        """``logit``, ``probability`` or ``own``; loads the model where its checkpoint decides."""
        return cast("ScoreScale", self._model.score_scale)

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` per candidate of its own; batches mix the pairs of all queries."""
        if not any(candidates):
            return [[] for _ in queries]
        spans = self._spans(queries, candidates)
        scores = iter(self._model.score_pairs(_pairs(queries, candidates, spans)))
        return [[self._best(windows, [next(scores) for _ in windows]) for windows in of_query] for of_query in spans]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text, or a window of it, would be cut; score nothing."""
        spans = self._spans(queries, candidates)
        cut = iter(self._model.cuts(_pairs(queries, candidates, spans)))
        rows = [
            (candidate, True in [next(cut).text for _ in windows])
            for of_query, query_spans in zip(candidates, spans, strict=True)
            for candidate, windows in zip(of_query, query_spans, strict=True)
        ]
        if rows:
            require_none_cut(rows, self._remedies())

    def _remedies(self) -> list[str]:
        remedies = [] if self._windows else ["give a window"]
        limit = self._model.pair_limit(self._model.options().get("max_length"))
        return [*remedies, "raise max_length"] if limit < self._model.pair_limit() else remedies

    def _spans(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[list[Span]]]:
        """Return, for each query and each of its candidates, the character spans that are scored."""
        if self._windows is None:
            return [[[(0, len(candidate.text))] for candidate in of_query] for of_query in candidates]
        texts = list(dict.fromkeys(candidate.text for of_query in candidates for candidate in of_query))
        tokens = dict(zip(texts, self._model.token_spans(texts), strict=True))
        fitting = [
            self._windows.within(self._model.room(query)) if of_query else self._windows
            for query, of_query in zip(queries, candidates, strict=True)
        ]
        return [
            [windows.spans(candidate.text, tokens[candidate.text]) for candidate in of_query]
            for windows, of_query in zip(fitting, candidates, strict=True)
        ]

    def _best(self, windows: Sequence[Span], scores: Sequence[PairScore]) -> Scored:
        best = best_window([pair.score for pair in scores], [pair.order for pair in scores])
        score, cut, order = scores[best]
        return Scored(
            score,
            order=order,
            truncated=cut.text,
            query_truncated=cut.query,
            window=None if self._windows is None else windows[best],
        )


def _pairs(
    queries: Sequence[str], candidates: Sequence[Sequence[Candidate]], spans: Sequence[Sequence[Sequence[Span]]]
) -> list[tuple[str, str]]:
    return [
        (query, candidate.text[start:end])
        for query, of_query, query_spans in zip(queries, candidates, spans, strict=True)
        for candidate, windows in zip(of_query, query_spans, strict=True)
        for start, end in windows
    ]


class CandidateScorer(Protocol):
    """Protocol of a scorer of candidates, of several queries in one call."""

    @property
    def scale(self) -> ScoreScale:
        """The meaning of the scores: ``maxsim_sum``, ``maxsim_mean``, ``logit``, ``probability`` or ``own``."""
        ...

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` per candidate of its own."""
        ...

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text would be cut; score nothing.

        A scorer that does not know raises `InvalidInputError`, even for no candidates at all.
        """
        ...


@runtime_checkable
class AsyncCandidateScorer(Protocol):
    """Protocol of a scorer that waits for something else than this process, so that async calls need no thread."""

    async def ascore_many(
        self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]
    ) -> list[list[Scored]]:
        """Do as `CandidateScorer.score_many`, without blocking the event loop."""
        ...


class _OwnScorer(ABC):
    """A user's own scorer, called once per query, whose scores are on a scale of its own."""

    _scorer: Scorer | ListwiseScorer

    @property
    def name(self) -> str:
        """The scorer's name, or else that of its class, for traces."""
        return str(getattr(self._scorer, "name", type(self._scorer).__name__))

    @property
    def scale(self) -> ScoreScale:
        """``own``: what the scores mean is known to the scorer alone."""
        return "own"

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Call the scorer once per query that has candidates."""
        return [
            _scored(self._score, query, of_query) if of_query else []
            for query, of_query in zip(queries, candidates, strict=True)
        ]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Refuse, because such a scorer does not report what it reads.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise strict_refused(self._scorer)

    @abstractmethod
    def _score(self, query: str, texts: list[str]) -> Sequence[float]:
        """Return one score per text."""


class PlainScorer(_OwnScorer):
    """Scorer of candidates by any object with ``score(query, texts)``, on that object's scale."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer: Scorer = scorer

    def _score(self, query: str, texts: list[str]) -> Sequence[float]:
        return self._scorer.score(query, texts)


class ListwiseCandidateScorer(_OwnScorer):
    """Scorer of candidates by a `ListwiseScorer`, which gets all candidates of a query in one call.

    Raises
    ------
    InvalidInputError
        If its ``max_candidates`` is neither a whole number above 0 nor ``None``.
    """

    def __init__(self, scorer: ListwiseScorer) -> None:
        self._scorer: ListwiseScorer = scorer
        limit = getattr(scorer, "max_candidates", None)
        if limit is not None:
            limit = whole_number(limit, "max_candidates of a scorer", 1)
        self.max_candidates: int | None = limit
        """The most candidates of one query; ``None``: any number."""

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Call the scorer once per query that has candidates.

        Raises
        ------
        InvalidInputError
            If a query has more candidates than the scorer takes together, before anything is scored.
        """
        for of_query in candidates:
            self.require_count(len(of_query), "candidates")
        return super().score_many(queries, candidates)

    def require_count(self, count: int, name: str) -> None:
        """Raise `InvalidInputError` if `count`, of what `name` says, is more than the scorer takes together."""
        if self.max_candidates is not None and count > self.max_candidates:
            raise InvalidInputError(
                f"{name} is {count} with a listwise scorer of type {type(self._scorer).__name__}, which takes "
                f"{self.max_candidates} together at most; expected max_candidates={self.max_candidates} or fewer"
            )

    def _score(self, query: str, texts: list[str]) -> Sequence[float]:
        return self._scorer.score_list(query, texts)


def _scored(
    score: Callable[[str, list[str]], Sequence[float]], query: str, candidates: Sequence[Candidate]
) -> list[Scored]:
    """Return the scores of a user's own function as Python floats.

    Raises
    ------
    InvalidInputError
        If it returns anything but one number per text.
    """
    check_wanted()
    texts = [candidate.text for candidate in candidates]
    result = score(query, texts)
    try:
        scores = [float(score) for score in result]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the scorer gave {result!r}; expected a list of numbers") from error
    if len(scores) != len(candidates):
        raise InvalidInputError(f"the scorer gave {len(scores)} scores for {len(candidates)} texts; expected one each")
    return [Scored(score) for score in scores]
