"""MaxSim of candidates: from an index's stored vectors, from a cache, or encoded afresh; whole or by windows."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.schema import read_meta
from rerank_integrations.core.index.search_options import search_device
from rerank_integrations.core.maxsim import Floats, maxsim_many
from rerank_integrations.core.models.lengths import UNLIMITED
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.lengths import Lengths, require_none_cut, strict_refused
from rerank_integrations.core.reranking.options import CACHE_BYTES, ColBERTRerankOptions, ColBERTScale, ScoreScale
from rerank_integrations.core.reranking.windows import Span, Windows, best_window
from rerank_integrations.core.token_vectors import encode_documents, encode_queries
from rerank_integrations.core.types import Hit
from rerank_integrations.errors import IndexFormatError, InvalidInputError, ModelMismatchError


def held_hits(index: ColBERTIndex, query: Floats, ids: Sequence[str]) -> dict[str, Hit]:
    """Return, by id, the hits of those `ids` that `index` holds, scored from its stored vectors.

    Parameters
    ----------
    query
        The query's token vectors by the index's model; float32, *Shape:* (tokens, dim).

    Raises
    ------
    IndexClosedError
        If the index was closed.
    ModelMismatchError
        If the index now holds vectors of another model.
    """
    index._require_open()
    if not ids:
        return {}
    model = index.model
    hits = index._reader.rerank(query, list(dict.fromkeys(ids)), None, model.fingerprint, search_device(model))
    return {hit.id: hit for hit in hits}


def recorded_document_length(index: ColBERTIndex) -> int | None:
    """Return the ``document_length`` of the model that made the index; ``None`` for the checkpoint's own."""
    index._require_open()
    with index._catalog.read() as connection:
        recorded = read_meta(connection, index.path)["model"]
    try:
        length = json.loads(recorded).get("document_length")
    except (ValueError, AttributeError, RecursionError) as error:
        raise IndexFormatError(f"{index.path} is damaged: the model that it records is {recorded[:100]!r}") from error
    return length if isinstance(length, int) else None


# What an entry takes beside its vectors: its key, the array's header, the dictionary's slot.
_OVERHEAD = 384


class VectorCache:
    """Keeps the vectors that were used last; any number of threads may use it.

    Parameters
    ----------
    max_bytes
        How much all entries may take together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Floats] = OrderedDict()
        self._held = 0

    def get(self, text: str) -> Floats | None:
        """Return the vectors of `text`, or ``None`` if they are not here."""
        key = _key(text)
        with forks_held_off(), self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, text: str, vectors: Floats) -> None:
        """Keep the vectors of `text`; those unused for longest go. What is larger than the whole is not kept."""
        size = _size(vectors)
        if size > self._max_bytes:
            return
        # Always a copy: a view would keep its whole batch alive, and an encoder may write into an array of its own.
        kept = np.array(vectors, dtype=np.float32, order="C")
        key = _key(text)
        with forks_held_off(), self._lock:
            old = self._entries.pop(key, None)
            self._held += size - (0 if old is None else _size(old))
            self._entries[key] = kept
            while self._held > self._max_bytes:
                _, gone = self._entries.popitem(last=False)
                self._held -= _size(gone)


def _size(vectors: Floats) -> int:
    return 4 * vectors.size + _OVERHEAD


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_SCALES: dict[ColBERTScale, ScoreScale] = {"sum": "maxsim_sum", "mean": "maxsim_mean"}


@dataclass(frozen=True)
class _Encoded:
    """Texts in pieces, by text, and the vectors of each piece, by its own text."""

    spans: Mapping[str, Sequence[Span]]
    vectors: Mapping[str, Floats]
    cached: frozenset[str]

    def best(self, query: Floats, texts: Sequence[str]) -> list[Scored]:
        """Return, for each text, the score and the span of the piece of it that scores best."""
        pieces = [[text[start:end] for start, end in self.spans[text]] for text in texts]
        scores = iter(maxsim_many(query, [self.vectors[piece] for parts in pieces for piece in parts]))
        found: list[Scored] = []
        for text, parts in zip(texts, pieces, strict=True):
            of_parts = [next(scores) for _ in parts]
            best = best_window(of_parts)
            how = "cached" if self.cached.issuperset(parts) else "encoded"
            found.append(Scored(of_parts[best], window=self.spans[text][best], vectors=how))
        return found


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
        scale: ColBERTScale = "sum",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        options = ColBERTRerankOptions(window=window, stride=stride, scale=scale, cache_bytes=cache_bytes)
        if not isinstance(index, ColBERTIndex | None):
            raise InvalidInputError(f"index is of type {type(index).__name__}; expected an open ColBERTIndex or None")
        self._windows = options.windows
        self._lengths = Lengths(model)
        if self._windows is not None and not self._lengths.told:
            raise InvalidInputError(
                f"window is {window} with a model of type {type(model).__name__}, which does not say where its tokens "
                "are; expected a ColBERTModel"
            )
        self._cache_bytes = options.cache_bytes
        self._cache = VectorCache(self._cache_bytes)
        self._model = model
        self._index = index
        self._scale = options.scale

    def __reduce__(self) -> tuple[Any, ...]:
        # Where things are, no vectors.
        windows = {"window": self._windows.size, "stride": self._windows.stride} if self._windows else {}
        options: dict[str, Any] = {**windows, "scale": self._scale, "cache_bytes": self._cache_bytes}
        return functools.partial(ColBERTScorer, **options), (self._model, self._index)

    @property
    def scale(self) -> ScoreScale:
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
        vectors = encode_queries(self._model, list(queries))
        held = [self._held(query, given) for query, given in zip(vectors, candidates, strict=True)]
        rest = [
            [one.text for at, one in enumerate(given) if at not in found]
            for given, found in zip(candidates, held, strict=True)
        ]
        encoded = self._encoded(list(dict.fromkeys(chain.from_iterable(rest))))
        scored: list[list[Scored]] = []
        for query, given, found, texts in zip(vectors, candidates, held, rest, strict=True):
            fresh = iter(encoded.best(query, texts))
            scored.append([found[at] if at in found else next(fresh) for at in range(len(given))])
        return self._noted(queries, vectors, candidates, scored)

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Raise `TextTooLongError` if a text, or a window of it, would be cut; scores nothing."""
        if not self._lengths.told:
            raise strict_refused(self._model)
        rows = [one for given in candidates for one in given]
        if not rows:
            return
        spans = self._spans([one.text for one in rows])
        pieces = {text: [text[start:end] for start, end in found] for text, found in spans.items()}
        cut = self._lengths.cut(chain.from_iterable(pieces.values()))
        remedies = [] if self._windows else ["give a window"]
        if self._lengths.limit < self._lengths.limit_of(UNLIMITED):
            remedies.append("raise document_length")
        require_none_cut([(one, not cut.isdisjoint(pieces[one.text])) for one in rows], remedies)

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
        check_wanted()
        hits = held_hits(self._index, query, [one.id for one in candidates if isinstance(one.id, str)])
        # The text is compared on the hit itself: another process may replace a passage at any time.
        same = {
            at: hit for at, one in enumerate(candidates) if one.id in hits and (hit := hits[one.id]).text == one.text
        }
        unfit = self._stored_otherwise(self._index, [hit.text for hit in same.values()])
        return {
            at: Scored(hit.score, vectors="stored", window=(0, len(hit.text)))
            for at, hit in same.items()
            if hit.text not in unfit
        }

    def _stored_otherwise(self, index: ColBERTIndex, texts: Sequence[str]) -> set[str]:
        """Return the texts whose stored vectors are not what they would be encoded to: cut, or cut elsewhere."""
        if not self._lengths.told or not texts:
            return set()
        # The index may have been written with either; the reranker's own is what is wanted.
        lengths = recorded_document_length(index), index.model.options().get("document_length")
        limits = {self._lengths.limit, *map(self._lengths.limit_of, lengths)}
        windows = self._fitting()
        if windows is not None:
            limits.add(windows.size + self._lengths.markers)
        # Where all read the same, what is stored is cut as it would be now.
        return self._lengths.longer(texts, min(limits)) if len(limits) > 1 else set()

    def _fitting(self) -> Windows | None:
        return self._windows and self._windows.within(self._lengths.limit - self._lengths.markers)

    def _spans(self, texts: Sequence[str]) -> dict[str, list[Span]]:
        """Return, by text, the character spans of the pieces that are scored by themselves."""
        spans = {text: [(0, len(text))] for text in texts}
        windows = self._fitting() if spans else None
        if windows is not None:
            long = list(self._lengths.longer(spans, windows.size + self._lengths.markers))
            tokens = self._model.token_spans(long)
            spans.update({text: windows.spans(text, found) for text, found in zip(long, tokens, strict=True)})
        return spans

    def _encoded(self, texts: Sequence[str]) -> _Encoded:
        spans = self._spans(texts)
        pieces = list(dict.fromkeys(text[start:end] for text, found in spans.items() for start, end in found))
        known = {piece: vectors for piece in pieces if (vectors := self._cache.get(piece)) is not None}
        cached = frozenset(known)
        missing = [piece for piece in pieces if piece not in cached]
        # A score that is NaN names the candidate it is of, which is more than the text's number.
        fresh = encode_documents(self._model, missing, finite=False) if missing else []
        for piece, vectors in zip(missing, fresh, strict=True):
            self._cache.put(piece, vectors)
            known[piece] = vectors
        return _Encoded(spans, known, cached)

    def _noted(
        self,
        queries: Sequence[str],
        vectors: Sequence[Floats],
        candidates: Sequence[Sequence[Candidate]],
        scored: Sequence[Sequence[Scored]],
    ) -> list[list[Scored]]:
        """Return the scores on their scale, with what was cut of the texts and queries they are of."""
        read = [
            [_read(one, result) for one, result in zip(given, results, strict=True)]
            for given, results in zip(candidates, scored, strict=True)
        ]
        cut = self._lengths.cut(chain.from_iterable(read))
        return [
            [
                replace(
                    result,
                    truncated=text in cut,
                    query_truncated=is_cut,
                    window=None if self._windows is None else result.window,
                ).scaled(len(query) if self._scale == "mean" else 1)
                for text, result in zip(texts, results, strict=True)
            ]
            for query, is_cut, texts, results in zip(
                vectors, self._lengths.cut_queries(queries), read, scored, strict=True
            )
        ]


def _read(candidate: Candidate, scored: Scored) -> str:
    """Return what of the candidate's text was scored."""
    start, end = scored.window or (0, len(candidate.text))
    return candidate.text[start:end]
