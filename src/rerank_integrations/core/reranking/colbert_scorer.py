"""MaxSim of candidates: from an index's stored vectors, from a cache, or encoded afresh; whole or by windows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.held import held_hits, recorded_document_length
from rerank_integrations.core.maxsim import Floats, maxsim_many
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import Lengths, require_none_cut
from rerank_integrations.core.reranking.vector_cache import VectorCache
from rerank_integrations.core.reranking.windows import Span, best_window, require_window, window_spans
from rerank_integrations.errors import InvalidInputError, ModelMismatchError

CACHE_BYTES = 128 * 2**20
_SLACK = 2
_SCALES = {"sum": "maxsim_sum", "mean": "maxsim_mean"}


@dataclass(frozen=True)
class _Piece:
    """A text, or a window of it, that is scored by itself."""

    text: str
    span: Span


class ColBERTScorer:
    """Scores candidates by ColBERT; any number of threads may use it.

    Parameters
    ----------
    model
        A `ColBERTModel`, or an encoder of your own.
    index
        An open index of the same checkpoint. A candidate that it holds under the same id with the same text is
        scored from its stored vectors. Those it does not hold are encoded.
    window, stride
        In tokens. With a `window`, a text that is longer is scored by overlapping windows, and its best one counts; at
        most what the model reads at once. The `stride` is half a window by default.
    scale
        ``"sum"`` over the query's tokens (MaxSim), or ``"mean"``, which compares across queries.
    cache_bytes
        How many bytes of vectors of encoded candidates are kept for the next calls (float32, the last used ones).

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind.
    ModelMismatchError
        When scoring, if `model` is not the checkpoint that the index was built with.
    """

    def __init__(
        self,
        model: Any,
        index: ColBERTIndex | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        scale: str = "sum",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if scale not in _SCALES:
            raise InvalidInputError(f"scale is {scale!r}; expected 'sum' or 'mean'")
        if isinstance(cache_bytes, bool) or not isinstance(cache_bytes, int) or cache_bytes < 0:
            raise InvalidInputError(f"cache_bytes is {cache_bytes!r}; expected a whole number of at least 0")
        self._windows = require_window(window, stride)
        if self._windows is not None and not hasattr(model, "token_spans"):
            raise InvalidInputError(
                f"window is {window} with a model of type {type(model).__name__}, which does not say where its tokens "
                "are; expected a ColBERTModel"
            )
        self._cache_bytes = cache_bytes
        self._model = model
        self._index = index
        self._scale = scale
        self._cache = VectorCache(cache_bytes)
        self._lengths = Lengths()

    def __reduce__(self) -> tuple[Any, ...]:
        # Where things are, no vectors.
        window, stride = self._windows or (None, None)
        options: dict[str, Any] = {
            "window": window,
            "stride": stride,
            "scale": self._scale,
            "cache_bytes": self._cache_bytes,
        }
        return functools.partial(ColBERTScorer, **options), (self._model, self._index)

    @property
    def scale(self) -> str:
        """``maxsim_sum`` or ``maxsim_mean``."""
        return _SCALES[self._scale]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score a text; higher is better."""
        return [one.score for one in self.score_many([query], [[Candidate(None, text) for text in texts]])[0]]

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` for each of its candidates; a text is encoded once for all of them."""
        if not any(candidates):
            return [[] for _ in queries]
        self._require_same_model()
        vectors = self._model.encode_queries(list(queries))
        query_cut = self._cuts(queries, "query")
        held = [self._held(query, given) for query, given in zip(vectors, candidates, strict=True)]
        rest = [
            one.text
            for given, found in zip(candidates, held, strict=True)
            for at, one in enumerate(given)
            if at not in found
        ]
        pieces = self._pieces(list(dict.fromkeys(rest)))
        encoded, cached = self._encoded([piece.text for parts in pieces.values() for piece in parts])
        cut = self._cut_texts(candidates)
        return [
            [
                replace(
                    found[at]
                    if at in found
                    else _best(query, pieces[one.text], encoded, cached, self._windows is not None),
                    truncated=one.text in cut,
                    query_truncated=is_cut,
                ).scaled(len(query) if self._scale == "mean" else 1)
                for at, one in enumerate(given)
            ]
            for query, is_cut, given, found in zip(vectors, query_cut, candidates, held, strict=True)
        ]

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text would be cut; scores nothing."""
        cut = self._cut_texts(candidates)
        require_none_cut([(one, one.text in cut) for given in candidates for one in given], "document_length")

    def _require_same_model(self) -> None:
        if self._index is None or self._model is self._index.model:
            return
        ours, theirs = self._model, self._index.model
        if ours.fingerprint != theirs.fingerprint:
            raise ModelMismatchError(
                f"the reranker's model is {ours.name!r} ({ours.fingerprint}); "
                f"expected that of the index, {theirs.name!r} ({theirs.fingerprint})"
            )

    def _held(self, query: Floats, candidates: Sequence[Candidate]) -> dict[int, Scored]:
        """Return, by position, the scores of those candidates whose vectors the index holds as they are needed."""
        if self._index is None:
            return {}
        hits = held_hits(self._index, query, [one.id for one in candidates if one.id is not None])
        # The text is compared on the hit itself: another process may replace a passage at any time.
        same = [at for at, one in enumerate(candidates) if one.id in hits and hits[one.id].text == one.text]
        unfit = self._stored_otherwise([candidates[at].text for at in same])
        return {
            at: Scored(
                hits[str(candidates[at].id)].score,
                vectors="stored",
                window=(0, len(candidates[at].text)) if self._windows is not None else None,
            )
            for at in same
            if candidates[at].text not in unfit
        }

    def _stored_otherwise(self, texts: Sequence[str]) -> set[str]:
        """Return the texts whose stored vectors are not what they would be encoded to: cut, or cut elsewhere."""
        if not hasattr(self._model, "cuts") or self._index is None:
            return set()
        length = recorded_document_length(self._index)
        own = self._model.options().get("document_length")
        if self._windows is None and length == own:
            return set()
        cut = self._lengths.longer(self._model, texts, length) | self._lengths.longer(self._model, texts, own)
        return cut | (self._longer_than_window(texts) if self._windows is not None else set())

    def _longer_than_window(self, texts: Sequence[str]) -> set[str]:
        return {text for text, pieces in self._pieces(list(texts)).items() if len(pieces) > 1}

    def _pieces(self, texts: Sequence[str]) -> Mapping[str, list[_Piece]]:
        if self._windows is None or not texts:
            return {text: [_Piece(text, (0, len(text)))] for text in texts}
        window, stride = self._windows
        # A word cut in two may take a token more than it did.
        room = max(1, self._model.room - _SLACK)
        window, stride = min(window, room), min(stride, room)
        return {
            text: [_Piece(text[start:end], (start, end)) for start, end in window_spans(text, tokens, window, stride)]
            for text, tokens in zip(texts, self._model.token_spans(list(texts)), strict=True)
        }

    def _encoded(self, texts: Sequence[str]) -> tuple[dict[str, Floats], set[str]]:
        """Return the vectors of each text, and which of them were in the cache."""
        unique = list(dict.fromkeys(texts))
        found = {text: vectors for text in unique if (vectors := self._cache.get(text)) is not None}
        missing = [text for text in unique if text not in found]
        cached = set(found)
        for text, vectors in zip(missing, self._model.encode_documents(missing) if missing else [], strict=True):
            self._cache.put(text, vectors)
            found[text] = vectors
        return found, cached

    def _cut_texts(self, candidates: Sequence[Sequence[Candidate]]) -> set[str]:
        if self._windows is not None or not hasattr(self._model, "cuts"):
            return set()
        own = self._model.options().get("document_length")
        return self._lengths.longer(self._model, [one.text for given in candidates for one in given], own)

    def _cuts(self, texts: Sequence[str], task: str) -> list[bool]:
        return self._model.cuts(list(texts), task) if hasattr(self._model, "cuts") else [False] * len(texts)


def _best(
    query: Floats, pieces: Sequence[_Piece], encoded: Mapping[str, Floats], cached: set[str], windowed: bool
) -> Scored:
    scores = maxsim_many(query, [encoded[piece.text] for piece in pieces])
    best = best_window(scores)
    how = "cached" if all(piece.text in cached for piece in pieces) else "encoded"
    return Scored(scores[best], vectors=how, window=pieces[best].span if windowed else None)
