"""Any scorer of a user's own, and what the package's own scorers can do beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.models.cross_encoder import PairScore
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import require_none_cut, strict_refused
from rerank_integrations.core.reranking.windows import Span, best_window, require_windows
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError


class CrossEncoderScorer:
    """Scores candidates by a cross-encoder; any number of threads may use it.

    Parameters
    ----------
    model
        What reads query and text together.
    window, stride
        In tokens of the text. With a `window`, a text that is longer is scored by overlapping windows, and its best
        one counts; at most what the model has room for beside the query. The `stride` is half a window by default.

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind.
    """

    def __init__(self, model: CrossEncoderModel, *, window: int | None = None, stride: int | None = None) -> None:
        self._windows = require_windows(window, stride)
        self._model = model

    @property
    def scale(self) -> str:
        """``logit``, ``probability`` or ``own``; loads the model where its checkpoint decides."""
        return self._model.score_scale

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` for each of its candidates; batches are made of all queries' pairs."""
        if not any(candidates):
            return [[] for _ in queries]
        spans = self._spans(queries, candidates)
        scores = iter(self._model.score_pairs(_pairs(queries, candidates, spans)))
        return [[self._best(windows, [next(scores) for _ in windows]) for windows in found] for found in spans]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text, or a window of it, would be cut; scores nothing."""
        spans = self._spans(queries, candidates)
        cut = iter(self._model.cuts(_pairs(queries, candidates, spans)))
        rows = [
            (one, True in [next(cut).text for _ in windows])
            for given, found in zip(candidates, spans, strict=True)
            for one, windows in zip(given, found, strict=True)
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
            return [[[(0, len(one.text))] for one in given] for given in candidates]
        texts = list(dict.fromkeys(one.text for given in candidates for one in given))
        tokens = dict(zip(texts, self._model.token_spans(texts), strict=True))
        fitting = [
            self._windows.within(self._model.room(query)) if given else self._windows
            for query, given in zip(queries, candidates, strict=True)
        ]
        return [
            [windows.spans(one.text, tokens[one.text]) for one in given]
            for windows, given in zip(fitting, candidates, strict=True)
        ]

    def _best(self, windows: Sequence[Span], scores: Sequence[PairScore]) -> Scored:
        best = best_window([one.score for one in scores], [one.order for one in scores])
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
        (query, one.text[start:end])
        for query, given, found in zip(queries, candidates, spans, strict=True)
        for one, windows in zip(given, found, strict=True)
        for start, end in windows
    ]


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
