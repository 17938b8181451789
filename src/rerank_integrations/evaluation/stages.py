"""The stages of a pipeline, each timed by itself: retrievers, which find passages, and rerankers, which order them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.blas import one_thread
from rerank_integrations.core.concurrency.cores import ALONE, on_compute_thread
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.maxsim import Floats, maxsim_block
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel, TokenEncoder
from rerank_integrations.core.ranking import best_first
from rerank_integrations.core.types import Passage, Scorer
from rerank_integrations.evaluation.bm25 import BM25
from rerank_integrations.evaluation.pipelines import STARTER, Rerank, Retrieve
from rerank_integrations.evaluation.vectors import (
    Encoded,
    PooledEncoder,
    Vectors,
    encoded,
    given_queries,
    given_vectors,
)

# How a retriever represents an encoded query.
Query = TypeVar("Query")
# Passages whose tokens are multiplied in one step of exact MaxSim.
_PASSAGES_PER_BLOCK = 128


class Retriever(Protocol[Query]):
    """A first stage; several threads may call `encode` and `retrieve`."""

    def build(self, passages: Sequence[Passage]) -> None:
        """Index all passages."""
        ...

    def encode(self, query: str) -> Query:
        """Return the query as `retrieve` takes it."""
        ...

    def retrieve(self, query: Query, depth: int) -> list[str]:
        """Return ids, best first."""
        ...

    def bytes(self) -> int:
        """Return the size of the index."""
        ...


class Reranker(Protocol):
    """A later stage; several threads may call `scores`."""

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        """Return one score per id; higher is better."""
        ...

    def bytes(self) -> int:
        """Return the size of its index; 0 without one."""
        ...


def open_retriever(stage: Retrieve, vectors: Sequence[Vectors] | None = None) -> Retriever[Any]:
    """Return the empty retriever of a pipeline; with `vectors` of the passages it does not encode them."""
    if stage.kind == "bm25":
        return BM25()
    model = stage.model or STARTER
    if stage.kind == "dense":
        return _Dense(model, vectors)
    encoder = ColBERTModel(model)
    if stage.nbits is None:
        return _ExactLateInteraction(encoder, vectors)
    return _LateInteraction(encoder, stage.nbits, vectors)


def open_reranker(stage: Rerank, passages: Sequence[Passage], vectors: Sequence[Vectors] | None = None) -> Reranker:
    """Return the reranker of a pipeline; one with an index indexes all passages, by their `vectors` if given."""
    if stage.nbits is not None:
        return _StoredVectorReranker(ColBERTModel(stage.model), stage.nbits, passages, vectors)
    model = ColBERTModel(stage.model) if stage.kind == "colbert" else CrossEncoderModel(stage.model)
    return scoring_texts(model, {passage.id: passage.text for passage in passages})


def scoring_texts(scorer: Scorer, texts: Mapping[str, str]) -> Reranker:
    """Return the reranker that scores the text of each passage; `texts` maps ids to texts."""
    return _TextReranker(scorer, texts)


def exact_retriever(model: TokenEncoder, passages: Sequence[Passage], vectors: Sequence[Vectors]) -> Retriever[Floats]:
    """Return exact MaxSim over passages by their `vectors`, *Shape:* (tokens, dim) each."""
    retriever = _ExactLateInteraction(model, vectors)
    retriever.build(passages)
    return retriever


def is_compressed(stage: Retriever[Any] | Reranker) -> bool | None:
    """Return whether the ColBERT index of a stage is compressed, which a small one is not; ``None`` without one."""
    retriever = stage.retriever if isinstance(stage, _StoredVectorReranker) else stage
    return retriever.index.stats().kind == "plaid" if isinstance(retriever, _LateInteraction) else None


def best_reranked(query: str, ids: Sequence[str], candidates: int, reranker: Reranker) -> list[str]:
    """Put the best `candidates` of `ids` in the reranker's order; the others stay behind them in theirs."""
    best, rest = list(ids[:candidates]), list(ids[candidates:])
    if best:
        best = [best[position] for position, _ in best_first(reranker.scores(query, best), best)]
    return best + rest


class _TextReranker:
    """A scorer over the texts of passages."""

    def __init__(self, scorer: Scorer, texts: Mapping[str, str]) -> None:
        self._scorer, self._texts = scorer, texts

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        return list(self._scorer.score(query, [self._texts[key] for key in ids]))

    def bytes(self) -> int:
        return 0


class _StoredVectorReranker:
    """A `ColBERTIndex` of all passages, which reranks from stored vectors and encodes the query alone."""

    def __init__(
        self,
        model: TokenEncoder,
        nbits: int,
        passages: Sequence[Passage],
        vectors: Sequence[Vectors] | None,
    ) -> None:
        self.retriever = _LateInteraction(model, nbits, vectors, encode_queries=True)
        self.retriever.build(passages)

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        scores = {hit.id: hit.score for hit in self.retriever.index.rerank(query, ids)}
        return [scores[key] for key in ids]

    def bytes(self) -> int:
        return self.retriever.bytes()


class _Dense:
    """One unit vector per passage, searched exactly by faiss."""

    def __init__(self, model: str, vectors: Sequence[Vectors] | None) -> None:
        self._model, self._vectors = PooledEncoder(model), vectors

    def build(self, passages: Sequence[Passage]) -> None:
        import faiss

        self._ids = [passage.id for passage in passages]
        vectors = self._vectors
        if vectors is None:
            vectors = self._model.encode([passage.text for passage in passages])
        rows = np.concatenate(vectors, dtype=np.float32)
        self._index: Any = faiss.IndexFlatIP(rows.shape[1])
        self._index.add(rows)

    def encode(self, query: str) -> Floats:
        return self._model.encode_query(query)

    def retrieve(self, query: Floats, depth: int) -> list[str]:
        _, positions = self._index.search(query, min(depth, len(self._ids)))
        return [self._ids[position] for position in positions[0]]

    def bytes(self) -> int:
        return int(self._index.ntotal * self._index.d * 4)


class _LateInteraction:
    """A `ColBERTIndex` in a temporary folder, searched by `Encoded` queries; with `encode_queries`, by texts."""

    def __init__(
        self,
        model: TokenEncoder,
        nbits: int,
        vectors: Sequence[Vectors] | None,
        *,
        encode_queries: bool = False,
    ) -> None:
        self._model, self._nbits, self._vectors, self._encode_queries = model, nbits, vectors, encode_queries
        self._folder = tempfile.TemporaryDirectory(prefix="evaluate-")

    def build(self, passages: Sequence[Passage]) -> None:
        model = self._model if self._encode_queries else given_queries(self._model)
        if self._vectors is not None:
            by_text = {passage.text: vectors for passage, vectors in zip(passages, self._vectors, strict=True)}
            model = given_vectors(model, by_text)
        self.index = ColBERTIndex.create(Path(self._folder.name) / "index", model, nbits=self._nbits)
        self.index.upsert(passages)

    def encode(self, query: str) -> Encoded:
        return encoded(query, self._model)

    def retrieve(self, query: Encoded, depth: int) -> list[str]:
        return [hit.id for hit in self.index.search(query, depth)]

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.index.path.rglob("*") if file.is_file())


class _ExactLateInteraction:
    """MaxSim over every passage's float16 token vectors: the standard for compressed indexes."""

    def __init__(self, model: TokenEncoder, vectors: Sequence[Vectors] | None) -> None:
        self._model, self._vectors = model, vectors

    def build(self, passages: Sequence[Passage]) -> None:
        vectors: Sequence[Vectors] | None = self._vectors
        if vectors is None:
            vectors = self._model.encode_documents([passage.text for passage in passages], show_progress=True)
        self._ids = [passage.id for passage in passages]
        self._blocks: list[tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.int64]]] = []
        for start in range(0, len(vectors), _PASSAGES_PER_BLOCK):
            block = vectors[start : start + _PASSAGES_PER_BLOCK]
            lengths = np.array([len(tokens) for tokens in block])
            full = np.flatnonzero(lengths)
            starts = np.concatenate([[0], np.cumsum(lengths[full])[:-1]]).astype(np.int64)
            self._blocks.append((np.concatenate(block).astype(np.float16), starts, start + full))

    def encode(self, query: str) -> Floats:
        return self._model.encode_queries([query])[0]

    def retrieve(self, query: Floats, depth: int) -> list[str]:
        scores = np.full(len(self._ids), -np.inf, dtype=np.float32)
        with one_thread():
            for tokens, starts, positions in self._blocks:
                if len(positions):
                    # A team of threads for a block takes 12 ms on two busy cores, one thread 0.3.
                    block = on_compute_thread(ALONE, functools.partial(_as_float32, tokens))
                    scores[positions] = maxsim_block(query, block, starts)
        return [self._ids[position] for position in np.argsort(-scores, kind="stable")[:depth]]

    def bytes(self) -> int:
        return sum(tokens.nbytes for tokens, _, _ in self._blocks)


def _as_float32(tokens: NDArray[np.float16]) -> NDArray[np.float32]:
    import torch

    # Ten times as fast as NumPy.
    converted: NDArray[np.float32] = torch.from_numpy(tokens).float().numpy()
    return converted
