"""The stages of a pipeline, each timed by itself: what finds passages, and what puts them in order."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.blas import one_thread
from rerank_integrations.core.concurrency.cores import ALONE, on_compute_thread
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.maxsim import maxsim_block
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel, TokenEncoder
from rerank_integrations.core.ranking import best_first
from rerank_integrations.core.types import Passage, Scorer
from rerank_integrations.evaluation.bm25 import BM25
from rerank_integrations.evaluation.pipelines import STARTER, Rerank, Retrieve
from rerank_integrations.evaluation.vectors import PooledEncoder, encoded, given_queries, given_vectors

# Passages whose tokens are multiplied at once.
_BLOCK = 128


class Retriever(Protocol):
    """Finds passages; `encode` and `retrieve` may be called by several threads."""

    def build(self, passages: Sequence[Passage]) -> None:
        """Take all passages in."""
        ...

    def encode(self, query: str) -> Any:
        """Return what `retrieve` wants of a query."""
        ...

    def retrieve(self, query: Any, depth: int) -> list[str]:
        """Return ids, best first."""
        ...

    def bytes(self) -> int:
        """Return how large the index is."""
        ...


class Reranker(Protocol):
    """Scores passages; several threads may ask."""

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        """Return one score an id; higher is better."""
        ...

    def bytes(self) -> int:
        """Return how large its index is; 0 without one."""
        ...


def open_retriever(stage: Retrieve, vectors: Sequence[NDArray[Any]] | None = None) -> Retriever:
    """Return the retriever of a pipeline, with nothing in it; its passages need no encoding given `vectors`."""
    if stage.kind == "bm25":
        return BM25()
    model = stage.model or STARTER
    if stage.kind == "dense":
        return _Dense(model, vectors)
    encoder = ColBERTModel(model)
    if stage.nbits is None:
        return _ExactLateInteraction(encoder, vectors)
    return _LateInteraction(encoder, stage.nbits, vectors)


def open_reranker(
    stage: Rerank, passages: Sequence[Passage], vectors: Sequence[NDArray[np.float16]] | None = None
) -> Reranker:
    """Return the reranker of a pipeline; one with an index puts all passages in, not encoded given `vectors`."""
    if stage.nbits is not None:
        return _Stored(ColBERTModel(stage.model), stage.nbits, passages, vectors)
    model = ColBERTModel(stage.model) if stage.kind == "colbert" else CrossEncoderModel(stage.model)
    return scoring_texts(model, {passage.id: passage.text for passage in passages})


def scoring_texts(scorer: Scorer, texts: Mapping[str, str]) -> Reranker:
    """Return the reranker that scores the text of each passage, by `texts`."""
    return _Texts(scorer, texts)


def exact_retriever(
    model: TokenEncoder, passages: Sequence[Passage], vectors: Sequence[NDArray[np.float16]]
) -> Retriever:
    """Return exact MaxSim over passages whose `vectors` are here already, *Shape:* (tokens, dim) each."""
    retriever = _ExactLateInteraction(model, vectors)
    retriever.build(passages)
    return retriever


def is_compressed(stage: Retriever | Reranker) -> bool | None:
    """Return whether the ColBERT index of a stage is compressed, which a small one is not; ``None`` without one."""
    held = stage.held if isinstance(stage, _Stored) else stage
    return held.index.stats().kind == "plaid" if isinstance(held, _LateInteraction) else None


def best_reranked(query: str, found: Sequence[str], candidates: int, reranker: Reranker) -> list[str]:
    """Put the best `candidates` of the ids `found` in the reranker's order; the others stay behind as they were."""
    best, rest = list(found[:candidates]), list(found[candidates:])
    if best:
        best = [best[place] for place, _ in best_first(reranker.scores(query, best), best)]
    return best + rest


class _Texts:
    """A scorer of texts."""

    def __init__(self, scorer: Scorer, texts: Mapping[str, str]) -> None:
        self._scorer, self._texts = scorer, texts

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        return list(self._scorer.score(query, [self._texts[key] for key in ids]))

    def bytes(self) -> int:
        return 0


class _Stored:
    """A `ColBERTIndex` of all passages, which encodes the query alone."""

    def __init__(
        self,
        model: TokenEncoder,
        nbits: int,
        passages: Sequence[Passage],
        vectors: Sequence[NDArray[np.float16]] | None,
    ) -> None:
        self.held = _LateInteraction(model, nbits, vectors, queries_too=True)
        self.held.build(passages)

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        scores = {hit.id: hit.score for hit in self.held.index.rerank(query, ids)}
        return [scores[key] for key in ids]

    def bytes(self) -> int:
        return self.held.bytes()


class _Dense:
    """One unit vector a passage, searched exactly by faiss."""

    def __init__(self, model: str, vectors: Sequence[NDArray[np.float32]] | None) -> None:
        self._model, self._vectors = PooledEncoder(model), vectors

    def build(self, passages: Sequence[Passage]) -> None:
        import faiss

        self._ids = [passage.id for passage in passages]
        vectors = self._vectors
        if vectors is None:
            vectors = self._model.encode([passage.text for passage in passages])
        rows = np.concatenate(vectors)
        self._index: Any = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    def encode(self, query: str) -> Any:
        return self._model.encode_query(query)

    def retrieve(self, query: Any, depth: int) -> list[str]:
        _, found = self._index.search(query, min(depth, len(self._ids)))
        return [self._ids[place] for place in found[0]]

    def bytes(self) -> int:
        return int(self._index.ntotal * self._index.d * 4)


class _LateInteraction:
    """A `ColBERTIndex` in a temporary folder; without `queries_too` it takes queries that are `encoded`."""

    def __init__(
        self,
        model: TokenEncoder,
        nbits: int,
        vectors: Sequence[NDArray[np.float16]] | None,
        *,
        queries_too: bool = False,
    ) -> None:
        self._model, self._nbits, self._vectors, self._queries_too = model, nbits, vectors, queries_too
        self._folder = tempfile.TemporaryDirectory(prefix="evaluate-")

    def build(self, passages: Sequence[Passage]) -> None:
        model = self._model if self._queries_too else given_queries(self._model)
        if self._vectors is not None:
            by_text = {passage.text: vectors for passage, vectors in zip(passages, self._vectors, strict=True)}
            model = given_vectors(model, by_text)
        self.index = ColBERTIndex.create(Path(self._folder.name) / "index", model, nbits=self._nbits)
        self.index.upsert(passages)

    def encode(self, query: str) -> Any:
        return encoded(query, self._model)

    def retrieve(self, query: Any, depth: int) -> list[str]:
        return [hit.id for hit in self.index.search(query, depth)]

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.index.path.rglob("*") if file.is_file())


class _ExactLateInteraction:
    """MaxSim over every passage's float16 token vectors: what compression is measured against."""

    def __init__(self, model: TokenEncoder, vectors: Sequence[NDArray[np.float16]] | None) -> None:
        self._model, self._vectors = model, vectors

    def build(self, passages: Sequence[Passage]) -> None:
        vectors: Sequence[NDArray[Any]] | None = self._vectors
        if vectors is None:
            vectors = self._model.encode_documents([passage.text for passage in passages], show_progress=True)
        self._ids = [passage.id for passage in passages]
        self._blocks: list[tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.int64]]] = []
        for start in range(0, len(vectors), _BLOCK):
            some = vectors[start : start + _BLOCK]
            lengths = np.array([len(one) for one in some])
            full = np.flatnonzero(lengths)
            starts = np.concatenate([[0], np.cumsum(lengths[full])[:-1]]).astype(np.int64)
            self._blocks.append((np.concatenate(some).astype(np.float16), starts, start + full))

    def encode(self, query: str) -> Any:
        return self._model.encode_queries([query])[0]

    def retrieve(self, query: Any, depth: int) -> list[str]:
        scores = np.full(len(self._ids), -np.inf, dtype=np.float32)
        with one_thread():
            for tokens, starts, places in self._blocks:
                if len(places):
                    # A team of threads for a block takes 12 ms on two busy cores, one thread 0.3.
                    block = on_compute_thread(ALONE, functools.partial(_as_float32, tokens))
                    scores[places] = maxsim_block(query, block, starts)
        return [self._ids[place] for place in np.argsort(-scores, kind="stable")[:depth]]

    def bytes(self) -> int:
        return sum(tokens.nbytes for tokens, _, _ in self._blocks)


def _as_float32(tokens: NDArray[np.float16]) -> NDArray[np.float32]:
    import torch

    # Ten times as fast as NumPy.
    converted: NDArray[np.float32] = torch.from_numpy(tokens).float().numpy()
    return converted
