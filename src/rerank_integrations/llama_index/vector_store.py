"""A LlamaIndex vector store over a `ColBERTIndex`, which encodes nodes and queries by itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field, field_serializer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TransformComponent
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from rerank_integrations.core.checks import is_number
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.reranking.specs import IndexLike, index_spec
from rerank_integrations.core.types import SearchType
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._filters import filters_to_where
from rerank_integrations.llama_index._nodes import node_to_passage, passage_to_node, require_list, source_filter
from rerank_integrations.llama_index._postprocessor import CHECKED_BEFORE
from rerank_integrations.llama_index.retriever import search_texts

# What a query of LlamaIndex may ask of other stores.
_OTHER_STORES = ("mmr_threshold", "sparse_top_k", "hybrid_top_k", "output_fields", "embedding_field")

_SEARCH_TYPES: dict[VectorStoreQueryMode, SearchType] = {
    VectorStoreQueryMode.DEFAULT: "colbert",
    VectorStoreQueryMode.TEXT_SEARCH: "bm25",
    VectorStoreQueryMode.HYBRID: "hybrid",
}


class ColBERTVectorStore(BasePydanticVectorStore):
    """Store nodes in a `ColBERTIndex` and search it, wherever LlamaIndex takes a vector store.

    The store encodes texts and queries with the index's model, and neither reads nor keeps embeddings of nodes. It
    takes part in ``VectorStoreIndex``, ``StorageContext`` and ``IngestionPipeline``, which want an embedding model all
    the same: ``MockEmbedding(embed_dim=1)`` costs nothing, and `as_index` needs none. A pipeline hands over only nodes
    that have an embedding.

    A node that is added replaces the one with the same id, and comes back whole, as `node_to_passage` says. Every
    change is on disk when the call returns, so that there is nothing to persist.

    Parameters
    ----------
    index
        An open index; or a path, or a mapping of ``path`` and ``model``, which is opened read-only.

    Raises
    ------
    InvalidInputError
        If `index` is of a wrong kind.
    """

    stores_text: bool = Field(default=True, frozen=True, description="Texts are stored with their vectors.")
    is_embedding_query: bool = Field(default=False, frozen=True, description="The store encodes queries by itself.")
    index: Annotated[ColBERTIndex, CHECKED_BEFORE] = Field(frozen=True, description="The index; written as its path.")

    def __init__(self, index: IndexLike, **fields: object) -> None:
        # What to_dict writes beside the index.
        refuse_arguments("ColBERTVectorStore", fields.keys() - {"stores_text", "is_embedding_query", "class_name"})
        super().__init__(index=as_index(index))  # type: ignore[call-arg]

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "ColBERTVectorStore"

    @field_serializer("index")
    def _serialize_index(self, index: ColBERTIndex) -> str | None:
        return index_spec(index)

    @property
    def client(self) -> ColBERTIndex:
        """The index."""
        return self.index

    def as_index(
        self,
        transformations: Sequence[TransformComponent] | None = None,
        *,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> VectorStoreIndex:
        """Return a ``VectorStoreIndex`` over the store, which needs no embedding model.

        Unlike that of ``VectorStoreIndex.from_vector_store``, its retriever searches by the ``custom_embedding_strs``
        of a query that has them, and finds every node of the store whatever was inserted.

        Parameters
        ----------
        transformations
            What makes nodes of a document; by default LlamaIndex's ``Settings.transformations``.
        callback_manager, show_progress
            LlamaIndex's own.
        """
        options: dict[str, Any] = {"callback_manager": callback_manager, "show_progress": show_progress}
        if transformations is not None:
            options["transformations"] = list(transformations)
        return _Index.from_vector_store(self, embed_model=MockEmbedding(embed_dim=1), **options)

    def add(self, nodes: Iterable[BaseNode], **kwargs: object) -> list[str]:
        """Encode and store `nodes`; return their ids.

        Raises
        ------
        InvalidInputError
            For a node that cannot be stored, or an argument that is not known.
        IndexReadOnlyError, IndexWriteError
            If the index is not open for writing, or the disk is full.
        """
        refuse_arguments("add", kwargs)
        require_list(nodes, "nodes")
        passages = [node_to_passage(node) for node in nodes]
        self.index.upsert(passages)
        return [passage.id for passage in passages]

    async def async_add(self, nodes: Iterable[BaseNode], **kwargs: object) -> list[str]:
        """Do what `add` does, on a thread."""
        return await run_blocking(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: object) -> None:
        """Delete the nodes of a source document; a node without a source is its own document."""
        refuse_arguments("delete", delete_kwargs)
        self.index.delete(where=source_filter([ref_doc_id]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: object) -> None:
        """Do what `delete` does, on a thread."""
        await run_blocking(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: object
    ) -> None:
        """Delete the nodes with these ids, of those that match the filters.

        Raises
        ------
        InvalidInputError
            Without ids and filters, and for a filter that has no exact translation.
        """
        refuse_arguments("delete_nodes", delete_kwargs)
        where = filters_to_where(filters)
        if node_ids is None and where is None:
            raise InvalidInputError("delete_nodes has neither node_ids nor filters; clear() deletes every node")
        if node_ids is None:
            self.index.delete(where=where)
        else:
            self.index.delete(self._matching(node_ids, where))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: object
    ) -> None:
        """Do what `delete_nodes` does, on a thread."""
        await run_blocking(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return the nodes with these ids, in their order, of those that match the filters; every node without both."""
        where = filters_to_where(filters)
        if node_ids is None:
            passages = self.index.get(where=where or {})
        else:
            passages = self.index.get(self._matching(node_ids, where))
        return [passage_to_node(passage) for passage in passages]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Do what `get_nodes` does, on a thread."""
        return await run_blocking(self.get_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete every node."""
        self.index.delete(where={})

    async def aclear(self) -> None:
        """Do what `clear` does, on a thread."""
        await run_blocking(self.clear)

    def query(self, query: VectorStoreQuery, **kwargs: object) -> VectorStoreQueryResult:
        """Search for ``query.query_str`` among the nodes that the query allows.

        Raises
        ------
        InvalidInputError
            For a query without a text, another mode than ``DEFAULT``, ``TEXT_SEARCH`` (BM25) and ``HYBRID`` (both), and
            what only other stores have. ``alpha`` of a hybrid query is ColBERT's share, so 0 is BM25 alone.
        """
        refuse_arguments("query", kwargs)
        _require_supported(query)
        # An empty list restricts nothing, as in other stores: VectorStoreIndex gives one when it has no node ids.
        hits = search_texts(
            self.index,
            query.query_str or "",
            query.texts if isinstance(query, _TextQuery) else None,
            query.similarity_top_k,
            where=_where(query),
            ids=query.node_ids or None,
            search_type=_SEARCH_TYPES[query.mode],
            bm25_weight=None if query.alpha is None else 1 - query.alpha,
        )
        return VectorStoreQueryResult(
            nodes=[passage_to_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: object) -> VectorStoreQueryResult:
        """Do what `query` does, on a thread."""
        return await run_blocking(self.query, query, **kwargs)

    def _matching(self, node_ids: list[str], where: dict[str, object] | None) -> list[str]:
        """Return those of `node_ids` that match the filter."""
        if where is None or not node_ids:
            return node_ids
        matching = set(self.index.ids(where=where))
        return [node_id for node_id in node_ids if node_id in matching]


@dataclass
class _TextQuery(VectorStoreQuery):
    """A query of LlamaIndex with the texts to search by in place of ``query_str``."""

    texts: list[str] | None = None


class _Retriever(VectorIndexRetriever):
    """LlamaIndex's retriever, which hands over the ``custom_embedding_strs`` of a query too."""

    def _build_vector_store_query(self, query_bundle_with_embeddings: QueryBundle) -> VectorStoreQuery:
        query = super()._build_vector_store_query(query_bundle_with_embeddings)
        values = {field.name: getattr(query, field.name) for field in fields(query)}
        return _TextQuery(**values, texts=query_bundle_with_embeddings.custom_embedding_strs)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # LlamaIndex's own makes a new bundle here, without the texts.
        return await self._aget_nodes_with_embeddings(query_bundle)


class _Index(VectorStoreIndex):
    """LlamaIndex's index with the retriever above."""

    def as_retriever(self, **kwargs: Any) -> VectorIndexRetriever:
        # LlamaIndex passes the arguments of a query or chat engine here too, and its retriever ignores what it lacks.
        known = {*inspect.signature(VectorIndexRetriever).parameters, "vector_store_kwargs", *engine_arguments()}
        refuse_arguments("as_retriever", kwargs.keys() - (known - {"kwargs"}))
        kwargs = {"callback_manager": self._callback_manager, "object_map": self._object_map, **kwargs}
        return _Retriever(self, **kwargs)


def _where(query: VectorStoreQuery) -> dict[str, object] | None:
    where = filters_to_where(query.filters)
    if not query.doc_ids:
        return where
    of_documents = source_filter(query.doc_ids)
    return of_documents if where is None else {"$and": [of_documents, where]}


def _require_supported(query: VectorStoreQuery) -> None:
    if query.query_str is None:
        raise InvalidInputError("the query has no query_str; this store searches by text, not by an embedding")
    if query.mode not in _SEARCH_TYPES:
        expected = ", ".join(repr(mode.value) for mode in _SEARCH_TYPES)
        raise InvalidInputError(f"the query's mode is {query.mode.value!r}; expected one of {expected}")
    if query.alpha is not None and query.mode is not VectorStoreQueryMode.HYBRID:
        raise InvalidInputError(f"alpha of the query is {query.alpha!r}; expected None, because the mode is not hybrid")
    if query.alpha is not None and not (is_number(query.alpha) and 0 <= query.alpha <= 1):
        raise InvalidInputError(f"alpha of the query is {query.alpha!r}; expected a number from 0 to 1")
    for name in _OTHER_STORES:
        if (value := getattr(query, name)) is not None:
            raise InvalidInputError(f"{name} of the query is {value!r}; expected None, because this store has no such")


def refuse_arguments(what: str, arguments: Iterable[str]) -> None:
    """Raise an `InvalidInputError` that names `arguments`, if there are any."""
    if names := sorted(arguments):
        raise InvalidInputError(f"{what} has the arguments {names}; expected none of these")


def engine_arguments() -> set[str]:
    """Return the names of the arguments that LlamaIndex's query and chat engines take."""
    builders = (
        RetrieverQueryEngine.from_args,
        CondensePlusContextChatEngine.from_defaults,
        CondenseQuestionChatEngine.from_defaults,
        ContextChatEngine.from_defaults,
        SimpleChatEngine.from_defaults,
    )
    return {name for builder in builders for name in inspect.signature(builder).parameters} - {"kwargs"}
