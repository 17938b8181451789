"""MaxSim of candidates, whole or by windows: from an index's stored vectors, from a cache, or encoded again."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.maxsim import Floats, maxsim_many
from rerank_integrations.core.models.lengths import UNLIMITED
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import Lengths, as_tokenizing_model, require_none_cut, strict_refused
from rerank_integrations.core.reranking.options import CACHE_BYTES, ColBERTRerankOptions, ColBERTScale
from rerank_integrations.core.reranking.windows import Span, Windows, best_window
from rerank_integrations.core.token_pooling import pooled
from rerank_integrations.core.token_vectors import encode_documents, encode_queries
from rerank_integrations.core.types import ScoreScale, TokenEncoder, VectorSource
from rerank_integrations.errors import InvalidInputError, ModelMismatchError

# Bytes per entry beside its vectors: its key, the array's header, the dictionary's slot.
_ENTRY_OVERHEAD_BYTES = 384


class VectorCache:
    """A cache of the vectors that were used last; any number of threads may use it.

    Parameters
    ----------
    max_bytes
        How many bytes all entries may take together; 0 caches nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Floats] = OrderedDict()
        self._bytes = 0

    def get(self, text: str, pool_factor: float = 1.0) -> Floats | None:
        """Return the vectors of `text`, pooled by a factor, or ``None`` if they are not cached."""
        key = _key(text, pool_factor)
        with forks_held_off(), self._lock:
            vectors = self._entries.get(key)
            if vectors is not None:
                self._entries.move_to_end(key)
            return vectors

    def put(self, text: str, vectors: Floats, pool_factor: float = 1.0) -> None:
        """Cache the vectors of `text`, and drop those unused for longest; vectors above the limit are not cached."""
        size = _size(vectors)
        if size > self._max_bytes:
            return
        # Always a copy: a view would keep its whole batch alive, and an encoder may write into an array of its own.
        copy = np.array(vectors, dtype=np.float32, order="C")
        key = _key(text, pool_factor)
        with forks_held_off(), self._lock:
            old = self._entries.pop(key, None)
            self._bytes += size - (0 if old is None else _size(old))
            self._entries[key] = copy
            while self._bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= _size(oldest)


def _size(vectors: Floats) -> int:
    return 4 * vectors.size + _ENTRY_OVERHEAD_BYTES


def _key(text: str, pool_factor: float) -> bytes:
    # An index may be overwritten by one with another factor.
    person = b"" if pool_factor == 1 else repr(pool_factor).encode()[:16]
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=person).digest()


_SCALES: dict[ColBERTScale, ScoreScale] = {"sum": "maxsim_sum", "mean": "maxsim_mean"}


@dataclass(frozen=True)
class _Encoded:
    """Texts with the spans of their pieces, and each piece's vectors by the piece's own text."""

    spans: Mapping[str, Sequence[Span]]
    vectors: Mapping[str, Floats]
    cached: frozenset[str]
    pool_factor: float

    def best(self, query: Floats, texts: Sequence[str]) -> list[Scored]:
        """Return, for each text, the score and the span of its piece that scores best."""
        pieces_of = [[text[start:end] for start, end in self.spans[text]] for text in texts]
        scores = iter(maxsim_many(query, [self.vectors[piece] for pieces in pieces_of for piece in pieces]))
        scored: list[Scored] = []
        for text, pieces in zip(texts, pieces_of, strict=True):
            piece_scores = [next(scores) for _ in pieces]
            best = best_window(piece_scores)
            source: VectorSource = "cached" if self.cached.issuperset(pieces) else "encoded"
            span = self.spans[text][best]
            scored.append(Scored(piece_scores[best], window=span, vectors=source, pool_factor=self.pool_factor))
        return scored


class ColBERTScorer:
    """Scorer of candidates by ColBERT; any number of threads may use it.

    Parameters
    ----------
    model
        A `ColBERTModel`, or an encoder of your own.
    index
        An open index of the same checkpoint. A candidate that it stores under the same id with the same text is scored
        from its stored vectors. The other candidates are encoded, and their token vectors pooled as the index's are.
    window, stride
        In tokens. With a `window`, a longer text is scored by overlapping windows, and the best one counts. A window is
        at most as long as what the model reads at once. The `stride` is half a window by default.
    scale
        ``"sum"`` over the query's tokens (MaxSim), or ``"mean"``, which compares across queries.
    cache_bytes
        How many bytes of vectors of encoded candidates are cached for the next calls (float32, the last used ones).

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind.
    ModelMismatchError
        When scoring, if `model` is not the checkpoint that the index was built with.
    """

    def __init__(
        self,
        model: TokenEncoder,
        index: ColBERTIndex | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        scale: ColBERTScale = "sum",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        options = ColBERTRerankOptions(window=window, stride=stride, scale=scale, cache_bytes=cache_bytes)
        if not isinstance(index, ColBERTIndex | None):
            raise InvalidInputError(f"index is of type {type(index).__name__}; expected an open ColBERTIndex or None")
        self._windows = options.windows
        self._tokenizer = as_tokenizing_model(model)
        self._lengths = None if self._tokenizer is None else Lengths(self._tokenizer)
        if self._windows is not None and self._lengths is None:
            raise InvalidInputError(
                f"window is {window} with a model of type {type(model).__name__}, which does not say where its tokens "
                "are; expected a ColBERTModel"
            )
        self._cache = VectorCache(options.cache_bytes)
        self._model = model
        self._index = index
        self._options = options

    def __reduce__(self) -> tuple[Callable[..., ColBERTScorer], tuple[TokenEncoder, ColBERTIndex | None]]:
        # Model and index by their paths, without the cached vectors.
        return functools.partial(ColBERTScorer, **self._options.scorer_arguments()), (self._model, self._index)

    @property
    def name(self) -> str:
        """The model's name, for traces."""
        return self._model.name

    @property
    def scale(self) -> ScoreScale:
        """``maxsim_sum`` or ``maxsim_mean``."""
        return _SCALES[self._options.scale]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score per text; higher is better."""
        candidates = [Candidate(None, text) for text in texts]
        return [scored.score for scored in self.score_many([query], [candidates])[0]]

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` per candidate of its own; a text is encoded once for all queries."""
        if not any(candidates):
            return [[] for _ in queries]
        self._require_same_model()
        pool_factor = 1.0 if self._index is None else self._index.pool_factor
        vectors = encode_queries(self._model, list(queries))
        stored = [
            self._from_index(query, of_query, pool_factor) for query, of_query in zip(vectors, candidates, strict=True)
        ]
        other_texts = [
            [candidate.text for position, candidate in enumerate(of_query) if position not in known]
            for of_query, known in zip(candidates, stored, strict=True)
        ]
        encoded = self._encode(list(dict.fromkeys(chain.from_iterable(other_texts))), pool_factor)
        scored: list[list[Scored]] = []
        for query, of_query, known, texts in zip(vectors, candidates, stored, other_texts, strict=True):
            fresh = iter(encoded.best(query, texts))
            scored.append([known[position] if position in known else next(fresh) for position in range(len(of_query))])
        return self._with_notes(queries, vectors, candidates, scored)

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text, or a window of it, would be cut; score nothing."""
        if self._lengths is None:
            raise strict_refused(self._model)
        rows = list(chain.from_iterable(candidates))
        if not rows:
            return
        spans = self._spans([candidate.text for candidate in rows])
        pieces = {text: [text[start:end] for start, end in of_text] for text, of_text in spans.items()}
        cut = self._lengths.cut(chain.from_iterable(pieces.values()))
        remedies = [] if self._windows else ["give a window"]
        if self._lengths.limit < self._lengths.limit_of(UNLIMITED):
            remedies.append("raise document_length")
        require_none_cut([(candidate, not cut.isdisjoint(pieces[candidate.text])) for candidate in rows], remedies)

    def _require_same_model(self) -> None:
        if self._index is None or self._model is self._index.model:
            return
        ours, theirs = self._model, self._index.model
        if ours.fingerprint != theirs.fingerprint:
            raise ModelMismatchError(
                f"the reranker's model is {ours.name!r} ({ours.fingerprint}); "
                f"expected that of the index, {theirs.name!r} ({theirs.fingerprint})"
            )

    def _from_index(self, query: Floats, candidates: Sequence[Candidate], pool_factor: float) -> dict[int, Scored]:
        """Return, by position, the scores of the candidates that the index stores as they would be encoded."""
        if self._index is None:
            return {}
        check_wanted()
        ids = [candidate.id for candidate in candidates if isinstance(candidate.id, str)]
        hits = self._index.score_stored(query, ids)
        # The text is compared on the hit itself: another process may replace a passage at any time.
        same = {
            position: hits[candidate.id]
            for position, candidate in enumerate(candidates)
            if candidate.id in hits and hits[candidate.id].text == candidate.text
        }
        unfit = self._stored_otherwise(self._index, [hit.text for hit in same.values()])
        return {
            position: Scored(hit.score, vectors="stored", window=(0, len(hit.text)), pool_factor=pool_factor)
            for position, hit in same.items()
            if hit.text not in unfit
        }

    def _stored_otherwise(self, index: ColBERTIndex, texts: Sequence[str]) -> set[str]:
        """Return the texts whose stored vectors differ from what encoding gives: cut, or cut elsewhere."""
        if self._lengths is None or not texts:
            return set()
        # The index may have been written with either length; the reranker's own is the one to match.
        lengths = index.recorded_document_length, index.model.options().get("document_length")
        limits = {self._lengths.limit, *map(self._lengths.limit_of, lengths)}
        windows = self._fitting_windows()
        if windows is not None:
            limits.add(windows.size + self._lengths.markers)
        # Where all limits are equal, a stored text is cut where it would be cut now.
        return self._lengths.longer(texts, min(limits)) if len(limits) > 1 else set()

    def _fitting_windows(self) -> Windows | None:
        if self._windows is None or self._lengths is None:
            return None
        return self._windows.within(self._lengths.limit - self._lengths.markers)

    def _spans(self, texts: Sequence[str]) -> dict[str, list[Span]]:
        """Return, by text, the character spans of the pieces that are scored by themselves."""
        spans = {text: [(0, len(text))] for text in texts}
        windows = self._fitting_windows() if spans else None
        if windows is not None and self._lengths is not None and self._tokenizer is not None:
            long = list(self._lengths.longer(spans, windows.size + self._lengths.markers))
            tokens = self._tokenizer.token_spans(long)
            spans.update({text: windows.spans(text, of_text) for text, of_text in zip(long, tokens, strict=True)})
        return spans

    def _encode(self, texts: Sequence[str], pool_factor: float) -> _Encoded:
        spans = self._spans(texts)
        pieces = list(dict.fromkeys(text[start:end] for text, of_text in spans.items() for start, end in of_text))
        known = {piece: vectors for piece in pieces if (vectors := self._cache.get(piece, pool_factor)) is not None}
        cached = frozenset(known)
        missing = [piece for piece in pieces if piece not in cached]
        # A NaN is reported with its candidate once it is a score, which says more than the text's number here.
        fresh = encode_documents(self._model, missing, finite=False) if missing else []
        # Pooled like the stored ones: pooling lowers scores, and candidates of both kinds are ranked together.
        for piece, vectors in zip(missing, pooled(fresh, pool_factor), strict=True):
            self._cache.put(piece, vectors, pool_factor)
            known[piece] = vectors
        return _Encoded(spans, known, cached, pool_factor)

    def _with_notes(
        self,
        queries: Sequence[str],
        vectors: Sequence[Floats],
        candidates: Sequence[Sequence[Candidate]],
        scored: Sequence[Sequence[Scored]],
    ) -> list[list[Scored]]:
        """Return the scores on their scale, with what was cut of their texts and queries."""
        read = [
            [_read(candidate, result) for candidate, result in zip(of_query, results, strict=True)]
            for of_query, results in zip(candidates, scored, strict=True)
        ]
        cut: set[str] = set()
        cut_queries = [False] * len(queries)
        if self._lengths is not None:
            cut, cut_queries = self._lengths.cut(chain.from_iterable(read)), self._lengths.cut_queries(queries)
        return [
            [
                replace(
                    result,
                    truncated=text in cut,
                    query_truncated=is_cut,
                    window=None if self._windows is None else result.window,
                ).scaled(len(query) if self._options.scale == "mean" else 1)
                for text, result in zip(texts, results, strict=True)
            ]
            for query, is_cut, texts, results in zip(vectors, cut_queries, read, scored, strict=True)
        ]


def _read(candidate: Candidate, scored: Scored) -> str:
    """Return the part of the candidate's text that was scored."""
    start, end = scored.window or (0, len(candidate.text))
    return candidate.text[start:end]
