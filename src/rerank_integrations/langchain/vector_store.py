"""LangChain's vector store over an index."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from typing_extensions import Self

from rerank_integrations.core.checks import whole_number
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.index.storage.validation import require_storable
from rerank_integrations.core.reranking.relevance import search_diverse, search_with_relevance
from rerank_integrations.core.reranking.specs import ColBERTLike, IndexLike, load_colbert
from rerank_integrations.core.structure import require_no_structure
from rerank_integrations.core.types import Metadata, Passage, Where
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain._convert import as_list, hit_to_document, require_documents


class ColBERTVectorStore(VectorStore):
    """LangChain's vector store over a `ColBERTIndex`, which encodes by itself.

    A document without an id gets a random one (UUID 4) when it is added, as in LangChain's own stores: equal texts of
    two sources remain two documents. A document whose id is known replaces the stored one. Documents come back with the
    id, text and metadata that were added; scores are returned beside them.

    The asynchronous methods do the model's and the index's work on threads.

    Parameters
    ----------
    index
        An open index; or a path, which is opened read-only; or a mapping of ``path`` and ``model``.
    """

    def __init__(self, index: IndexLike) -> None:
        self.index: ColBERTIndex = as_index(index)

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str],
        embedding: ColBERTLike | Embeddings,
        metadatas: Iterable[Metadata] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        pool_factor: float | None = None,
    ) -> Self:
        """Add texts to an index, and return a store over it.

        Parameters
        ----------
        texts, metadatas, ids
            As for `add_texts`.
        embedding
            A `ColBERTModel`, or the name or path of one. LangChain's own embeddings have one vector per text, and are
            refused.
        path
            The folder of an index, which is opened or made; ``None`` for a temporary one, which goes when it is closed.
        nbits, pool_factor
            As for `ColBERTIndex.open_or_create`.
        """
        store = cls(_open(embedding, path, nbits, pool_factor))
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(  # type: ignore[override]
        cls,
        documents: Iterable[Document],
        embedding: ColBERTLike | Embeddings,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        pool_factor: float | None = None,
    ) -> Self:
        """Add documents to an index, and return a store over it; see `from_texts` and `add_documents`."""
        store = cls(_open(embedding, path, nbits, pool_factor))
        store.add_documents(documents, ids=ids)
        return store

    @classmethod
    async def afrom_texts(  # type: ignore[override]
        cls,
        texts: Iterable[str],
        embedding: ColBERTLike | Embeddings,
        metadatas: Iterable[Metadata] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        pool_factor: float | None = None,
    ) -> Self:
        """Do as `from_texts`, off the event loop."""
        options = {"ids": ids, "path": path, "nbits": nbits, "pool_factor": pool_factor}
        return await run_blocking(cls.from_texts, texts, embedding, metadatas, **options)

    @classmethod
    async def afrom_documents(  # type: ignore[override]
        cls,
        documents: Iterable[Document],
        embedding: ColBERTLike | Embeddings,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        pool_factor: float | None = None,
    ) -> Self:
        """Do as `from_documents`, off the event loop."""
        options = {"ids": ids, "path": path, "nbits": nbits, "pool_factor": pool_factor}
        return await run_blocking(cls.from_documents, documents, embedding, **options)

    def add_texts(  # type: ignore[override]
        self,
        texts: Iterable[str],
        metadatas: Iterable[Metadata] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
    ) -> list[str]:
        """Add texts, or replace those of the same id.

        Parameters
        ----------
        metadatas
            One per text; ``None`` for none.
        ids
            One per text; ``None`` among them, or in their place, stands for a new random id.

        Returns
        -------
        list of str
            The id of each text.

        Raises
        ------
        InvalidInputError
            If there is not one metadata or id per text, or if one of them cannot be stored. Then nothing is stored.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise InvalidInputError(f"texts is one {type(texts).__name__}; expected a list of strings")
        listed = list(texts)
        described = _one_per_text(metadatas, "metadatas", len(listed))
        named = _one_per_text(ids, "ids", len(listed))
        passages = [
            Passage(_id(passage_id), text, {} if metadata is None else metadata)
            for text, metadata, passage_id in zip(listed, described, named, strict=True)
        ]
        for passage in passages:
            # Before any is stored: a second try would store the first of them again, under other random ids.
            require_storable(passage)
            require_no_structure(passage.metadata, f"passage {passage.id!r}")
        return self.index.upsert(passages)

    def add_documents(  # type: ignore[override]
        self, documents: Iterable[Document], *, ids: Iterable[str | None] | None = None, batch_size: int | None = None
    ) -> list[str]:
        """Add documents, or replace those of the same id.

        All documents are checked before any is stored. The index then commits 256 at a time, so a process that is
        killed leaves those of the commits before. Adding the same documents again completes the work if they have ids;
        those without an id are added again, under another one: use ids of your own, or LangChain's ``index``.

        Parameters
        ----------
        ids
            One per document, in place of the documents' own.
        batch_size
            How many documents to add at a time, for LangChain's ``index``; by default the index decides.

        Returns
        -------
        list of str
            The id of each document.

        Raises
        ------
        InvalidInputError
            If there is anything but a document among them, not one id per document, or a bad `batch_size`.
        """
        listed = require_documents(as_list(documents))
        named = [document.id for document in listed] if ids is None else _one_per_text(ids, "ids", len(listed))
        added: list[str] = []
        for start, end in _batches(len(listed), batch_size):
            added += self.add_texts(
                [document.page_content for document in listed[start:end]],
                [document.metadata for document in listed[start:end]],
                ids=named[start:end],
            )
        return added

    async def aadd_texts(  # type: ignore[override]
        self,
        texts: Iterable[str],
        metadatas: Iterable[Metadata] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
    ) -> list[str]:
        """Do as `add_texts`, off the event loop."""
        return await run_blocking(self.add_texts, texts, metadatas, ids=ids)

    async def aadd_documents(  # type: ignore[override]
        self, documents: Iterable[Document], *, ids: Iterable[str | None] | None = None, batch_size: int | None = None
    ) -> list[str]:
        """Do as `add_documents`, off the event loop."""
        return await run_blocking(self.add_documents, documents, ids=ids, batch_size=batch_size)

    def delete(  # type: ignore[override]
        self, ids: Iterable[str] | None = None, *, filter: Where | None = None
    ) -> bool:
        """Remove documents by their ids or by a filter on their metadata; without either, all of them.

        Unknown ids are passed over. Returns True.

        Raises
        ------
        InvalidInputError
            For a bad filter, a filter in place of `ids`, or if both are given.
        """
        if isinstance(ids, Mapping):
            # Its fields would be taken for ids, and nothing would be removed.
            raise InvalidInputError(f"ids is {ids!r}; expected a list of strings, or a filter as filter=")
        self.index.delete(ids, where={} if ids is None and filter is None else filter)
        return True

    async def adelete(  # type: ignore[override]
        self, ids: Iterable[str] | None = None, *, filter: Where | None = None
    ) -> bool:
        """Do as `delete`, off the event loop."""
        return await run_blocking(self.delete, ids, filter=filter)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in their order; unknown ids are omitted."""
        return [hit_to_document(passage) for passage in self.index.get(ids)]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Do as `get_by_ids`, off the event loop."""
        return await run_blocking(self.get_by_ids, ids)

    def similarity_search(  # type: ignore[override]
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[Document]:
        """Return the best `k` documents; a filter on the metadata is applied before the search."""
        return [hit_to_document(hit) for hit in self.index.search(query, k, where=filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        """Do as `similarity_search`; each document comes with its MaxSim, a sum over the query's tokens."""
        return [(hit_to_document(hit), hit.score) for hit in self.index.search(query, k, where=filter)]

    def _similarity_search_with_relevance_scores(  # type: ignore[override]
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        hits = search_with_relevance(self.index, query, k, where=filter)
        return [(hit_to_document(hit), relevance) for hit, relevance in hits]

    def max_marginal_relevance_search(  # type: ignore[override]
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Where | None = None
    ) -> list[Document]:
        """Return `k` documents that are relevant and differ from each other, by MaxSim of their stored vectors.

        Parameters
        ----------
        fetch_k
            How many documents to choose from; at least `k` are searched for.
        lambda_mult
            From 0, where after the best document only differences count, to 1, the order of `similarity_search`.
        """
        hits = search_diverse(self.index, query, k, fetch_k=fetch_k, lambda_mult=lambda_mult, where=filter)
        return [hit_to_document(hit) for hit in hits]

    async def asimilarity_search(  # type: ignore[override]
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[Document]:
        """Do as `similarity_search`, off the event loop."""
        return await run_blocking(self.similarity_search, query, k, filter=filter)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        """Do as `similarity_search_with_score`, off the event loop."""
        return await run_blocking(self.similarity_search_with_score, query, k, filter=filter)

    async def _asimilarity_search_with_relevance_scores(  # type: ignore[override]
        self, query: str, k: int = 4, *, filter: Where | None = None
    ) -> list[tuple[Document, float]]:
        return await run_blocking(self._similarity_search_with_relevance_scores, query, k, filter=filter)

    async def amax_marginal_relevance_search(  # type: ignore[override]
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Where | None = None
    ) -> list[Document]:
        """Do as `max_marginal_relevance_search`, off the event loop."""
        return await run_blocking(self.max_marginal_relevance_search, query, k, fetch_k, lambda_mult, filter=filter)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> NoReturn:
        """Raise `NotImplementedError`: a query has a vector per token here, so give its text."""
        raise _no_single_vector("similarity_search_by_vector", "similarity_search(query)")

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> NoReturn:
        """Raise `NotImplementedError`, as `similarity_search_by_vector` does."""
        raise _no_single_vector("asimilarity_search_by_vector", "asimilarity_search(query)")

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> NoReturn:
        """Raise `NotImplementedError`, as `similarity_search_by_vector` does."""
        raise _no_single_vector("max_marginal_relevance_search_by_vector", "max_marginal_relevance_search(query)")

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> NoReturn:
        """Raise `NotImplementedError`, as `similarity_search_by_vector` does."""
        raise _no_single_vector("amax_marginal_relevance_search_by_vector", "amax_marginal_relevance_search(query)")


def _open(
    embedding: ColBERTLike | Embeddings,
    path: str | os.PathLike[str] | None,
    nbits: int | None,
    pool_factor: float | None,
) -> ColBERTIndex:
    if embedding is None or isinstance(embedding, Embeddings):
        raise InvalidInputError(
            f"embedding is of type {type(embedding).__name__}; expected a ColBERTModel, or the name or path of one, "
            "because the index holds a vector per token"
        )
    model = load_colbert(embedding)
    if path is None:
        factor = 1 if pool_factor is None else pool_factor
        return ColBERTIndex.create(None, model, nbits=2 if nbits is None else nbits, pool_factor=factor)
    return ColBERTIndex.open_or_create(path, model, nbits=nbits, pool_factor=pool_factor)


def _one_per_text(values: Iterable[Any] | None, name: str, count: int) -> list[Any]:
    if values is None:
        return [None] * count
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} is one {type(values).__name__}; expected a list, with an item per text")
    listed = list(values)
    if len(listed) != count:
        raise InvalidInputError(f"{name} has {len(listed)} items for {count} texts; expected one per text")
    return listed


def _id(passage_id: str | None) -> str:
    return str(uuid.uuid4()) if passage_id is None else passage_id


def _batches(count: int, batch_size: int | None) -> Iterator[tuple[int, int]]:
    size = max(1, count) if batch_size is None else whole_number(batch_size, "batch_size", 1)
    return itertools.pairwise([*range(0, count, size), count])


def _no_single_vector(method: str, instead: str) -> NotImplementedError:
    return NotImplementedError(
        f"{method} has one vector per query, and a ColBERT index has one per token; call {instead} with the text"
    )
