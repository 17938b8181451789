"""A LlamaIndex index over a `ColBERTIndex`: documents are inserted, updated, refreshed and deleted."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from llama_index.core.callbacks import CallbackManager
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.managed.base import BaseManagedIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, Document, TransformComponent
from llama_index.core.storage import StorageContext
from llama_index.core.storage.docstore.types import RefDocInfo
from llama_index.core.vector_stores.types import MetadataFilters

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.reranking.specs import ColBERTLike, IndexLike, load_colbert
from rerank_integrations.core.types import SearchType
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._nodes import (
    document_passages,
    is_stored_whole,
    passage_to_node,
    require_list,
    source_filter,
    source_of,
)
from rerank_integrations.llama_index.retriever import ColBERTRetriever
from rerank_integrations.llama_index.vector_store import ColBERTVectorStore, engine_arguments, refuse_arguments


class ColBERTManagedIndex(BaseManagedIndex):
    """Keep documents in a `ColBERTIndex` for their whole life.

    The nodes of a document know its id and its hash, and the index stores them, so that `refresh_ref_docs` needs no
    document store and works in a new process. Every change is on disk when the call returns. To load an index,
    construct this class over ``ColBERTIndex.open(path)``.

    Parameters
    ----------
    index
        An open index; or a path, or a mapping of ``path`` and ``model``, which is opened read-only.
    transformations
        What makes nodes of a document; by default LlamaIndex's ``Settings.transformations``, a splitter of sentences.
    callback_manager, show_progress
        LlamaIndex's own.

    Raises
    ------
    InvalidInputError
        If `index` is of a wrong kind.
    """

    index_struct_cls = IndexDict

    def __init__(
        self,
        index: IndexLike,
        *,
        transformations: Sequence[TransformComponent] | None = None,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> None:
        self._store = ColBERTVectorStore(index)
        super().__init__(
            index_struct=IndexDict(),
            storage_context=StorageContext.from_defaults(vector_store=self._store),
            transformations=None if transformations is None else list(transformations),
            callback_manager=callback_manager,
            show_progress=show_progress,
        )

    @classmethod
    def from_documents(  # type: ignore[override]
        cls,
        documents: Iterable[Document],
        model: ColBERTLike,
        path: str | os.PathLike[str] | None = None,
        transformations: Sequence[TransformComponent] | None = None,
        *,
        pool_factor: float | None = None,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> ColBERTManagedIndex:
        """Open or create the index at `path`, and refresh it with `documents`.

        Parameters
        ----------
        documents
            Those that are stored unchanged are not encoded again, and other stored documents stay.
        model
            A name, a path, a mapping of `ColBERTModel`'s arguments, or a model.
        path
            A folder; ``None`` for a temporary index, which goes when it is closed.
        pool_factor
            As for `ColBERTIndex.open_or_create`.
        transformations, callback_manager, show_progress
            As for the class.
        """
        require_list(documents, "documents")
        encoder = load_colbert(model)
        if path is None:
            index = ColBERTIndex.create(None, encoder, pool_factor=1 if pool_factor is None else pool_factor)
        else:
            index = ColBERTIndex.open_or_create(path, encoder, pool_factor=pool_factor)
        managed = cls(
            index, transformations=transformations, callback_manager=callback_manager, show_progress=show_progress
        )
        managed.refresh_ref_docs(documents)
        return managed

    @property
    def index(self) -> ColBERTIndex:
        """The index that stores the nodes."""
        return self._store.index

    @property
    def ref_doc_info(self) -> dict[str, RefDocInfo]:
        """The ids of the stored nodes and the metadata of each source document, by its id."""
        documents: dict[str, RefDocInfo] = {}
        for passage in self.index.get(where={}):
            source_id = source_of(passage)
            # A passage that was no node and names no document belongs to none.
            if source_id is not None:
                node = passage_to_node(passage)
                metadata = dict((node.source_node or node).metadata)
                documents.setdefault(source_id, RefDocInfo(metadata=metadata)).node_ids.append(node.node_id)
        return documents

    def insert(self, document: Document, **insert_kwargs: object) -> None:
        """Make nodes of `document` and store them; nodes that it has already are replaced, as by `update_ref_doc`."""
        refuse_arguments("insert", insert_kwargs)
        with self._callback_manager.as_trace("insert"):
            self._replace(document)

    def update_ref_doc(self, document: Document, **update_kwargs: object) -> None:
        """Replace the nodes of `document`. The old ones are deleted once the new ones are stored."""
        refuse_arguments("update_ref_doc", update_kwargs)
        with self._callback_manager.as_trace("update_ref_doc"):
            self._replace(document)

    def refresh_ref_docs(self, documents: Iterable[Document], **update_kwargs: object) -> list[bool]:
        """Insert or replace the documents that are new or have changed; return for each whether it was.

        A document of which no nodes are made, such as one of white space alone, leaves nothing to store.
        """
        refuse_arguments("refresh_ref_docs", update_kwargs)
        require_list(documents, "documents")
        with self._callback_manager.as_trace("refresh_ref_docs"):
            refreshed = []
            for document in documents:
                _require_document(document)
                with _changing(self.index):
                    changed = not is_stored_whole(self.index, document)
                    if changed:
                        changed = self._replace(document)
                refreshed.append(changed)
            return refreshed

    def delete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: object) -> None:
        """Delete the nodes of a document; there is no document store for `delete_from_docstore` to change."""
        self._store.delete(ref_doc_id, **delete_kwargs)

    def insert_nodes(self, nodes: Iterable[BaseNode], **insert_kwargs: object) -> None:
        """Store nodes; those of the same id are replaced."""
        self._insert(nodes, **insert_kwargs)

    def delete_nodes(self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete nodes by their ids."""
        self._store.delete_nodes(node_ids, **delete_kwargs)

    async def ainsert(self, document: Document, **insert_kwargs: object) -> None:
        """Do what `insert` does, on a thread."""
        await run_blocking(self.insert, document, **insert_kwargs)

    async def aupdate_ref_doc(self, document: Document, **update_kwargs: object) -> None:
        """Do what `update_ref_doc` does, on a thread."""
        await run_blocking(self.update_ref_doc, document, **update_kwargs)

    async def arefresh_ref_docs(self, documents: Iterable[Document], **update_kwargs: object) -> list[bool]:
        """Do what `refresh_ref_docs` does, on a thread."""
        return await run_blocking(self.refresh_ref_docs, documents, **update_kwargs)

    async def adelete_ref_doc(
        self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: object
    ) -> None:
        """Do what `delete_ref_doc` does, on a thread."""
        await run_blocking(self.delete_ref_doc, ref_doc_id, delete_from_docstore, **delete_kwargs)

    async def ainsert_nodes(self, nodes: Iterable[BaseNode], **insert_kwargs: object) -> None:
        """Do what `insert_nodes` does, on a thread."""
        await run_blocking(self.insert_nodes, nodes, **insert_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str], delete_from_docstore: bool = False, **delete_kwargs: object
    ) -> None:
        """Do what `delete_nodes` does, on a thread."""
        await run_blocking(self.delete_nodes, node_ids, delete_from_docstore, **delete_kwargs)

    def as_retriever(
        self,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        *,
        search_type: SearchType = "colbert",
        bm25_weight: float | None = None,
        score_threshold: float | None = None,
        **kwargs: object,
    ) -> ColBERTRetriever:
        """Return a `ColBERTRetriever` over the index.

        LlamaIndex passes the arguments of a query or chat engine here too; they are left to the engine.

        Raises
        ------
        InvalidInputError
            For an argument that neither the retriever nor an engine has.
        """
        refuse_arguments("as_retriever", kwargs.keys() - engine_arguments())
        manager = callback_manager or self._callback_manager
        return ColBERTRetriever(
            self.index,
            similarity_top_k,
            filters,
            manager,
            search_type=search_type,
            bm25_weight=bm25_weight,
            score_threshold=score_threshold,
        )

    def _insert(self, nodes: Iterable[BaseNode], **insert_kwargs: object) -> None:
        self._store.add(nodes, **insert_kwargs)

    def _delete_node(self, node_id: str, **delete_kwargs: Any) -> None:
        self._store.delete_nodes([node_id], **delete_kwargs)

    def _replace(self, document: Document) -> bool:
        """Store the nodes of `document` in place of its old ones; return whether there are any of either."""
        _require_document(document)
        # Transformations may change the document that they get.
        copied = document.model_copy(deep=True)
        nodes = run_transformations([copied], self._transformations, show_progress=self._show_progress)
        passages = document_passages(document, nodes)
        with _changing(self.index):
            stored = set(self.index.ids(where=source_filter([document.id_])))
            self._store.delete_nodes(sorted(stored - set(self.index.upsert(passages))))
        return bool(stored or passages)


def _require_document(document: object) -> None:
    if not isinstance(document, Document):
        raise InvalidInputError(f"a document is of type {type(document).__name__}; expected a Document of LlamaIndex")


# Two threads that replace one document at once must not keep the nodes of both. A lock per index, since any number of
# managed indexes may stand over it.
_LOCKS: WeakKeyDictionary[ColBERTIndex, threading.RLock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def _changing(index: ColBERTIndex) -> threading.RLock:
    """Return the lock under which the documents of `index` change."""
    with forks_held_off(), _LOCKS_LOCK:
        return _LOCKS.setdefault(index, threading.RLock())


def _forget_locks() -> None:
    """Drop the locks in a forked child, where no thread is left that would release them."""
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
