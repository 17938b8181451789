"""A cross-encoder's scores of candidates: whole, or by windows."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import require_none_cut
from rerank_integrations.core.reranking.windows import Span, best_window, require_window, window_spans

_SLACK = 2


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
        self._windows = require_window(window, stride)
        self._model = model

    @property
    def scale(self) -> str:
        """``logit``, ``probability`` or ``own``; loads the model where its checkpoint decides."""
        return self._model.score_scale

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` for each of its candidates; batches are made of all queries' pairs."""
        if not any(candidates):
            return [[] for _ in queries]
        spans = [self._spans(query, given) for query, given in zip(queries, candidates, strict=True)]
        pairs = [
            (query, one.text[start:end])
            for query, given, found in zip(queries, candidates, spans, strict=True)
            for one, windows in zip(given, found, strict=True)
            for start, end in windows
        ]
        scores = iter(self._model.score_pairs(pairs))
        query_cut = self._model.cuts_queries(queries)
        return [
            [self._best(windows, [next(scores) for _ in windows], is_cut) for windows in found]
            for found, is_cut in zip(spans, query_cut, strict=True)
        ]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a pair would be cut; scores nothing."""
        if self._windows is not None:
            return
        rows = [(query, one) for query, given in zip(queries, candidates, strict=True) for one in given]
        cut = self._model.cuts([(query, one.text) for query, one in rows])
        require_none_cut([(one, is_cut) for (_, one), is_cut in zip(rows, cut, strict=True)], "max_length")

    def _spans(self, query: str, candidates: Sequence[Candidate]) -> list[list[Span]]:
        texts = [one.text for one in candidates]
        if self._windows is None or not texts:
            return [[(0, len(text))] for text in texts]
        window, stride = self._windows
        # A word cut in two may take a token more than it did.
        room = max(1, self._model.room(query) - _SLACK)
        window, stride = min(window, room), min(stride, room)
        return [
            window_spans(text, tokens, window, stride)
            for text, tokens in zip(texts, self._model.token_spans(texts), strict=True)
        ]

    def _best(self, windows: Sequence[Span], scores: Sequence[tuple[float, bool]], query_cut: bool) -> Scored:
        best = best_window([score for score, _ in scores])
        score, is_cut = scores[best]
        whole = self._windows is None
        return Scored(
            score, truncated=is_cut and whole, query_truncated=query_cut, window=None if whole else windows[best]
        )
