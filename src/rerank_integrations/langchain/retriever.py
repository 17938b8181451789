"""Retrievers: one over an index, and one that follows any retriever by a reranker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from typing_extensions import Self

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.ranking import require_count
from rerank_integrations.core.reranking.specs import ColBERTLike, IndexLike, model_name, searched_index_spec
from rerank_integrations.core.types import Metadata, Where
from rerank_integrations.langchain._compressor import Compressor
from rerank_integrations.langchain._convert import hit_to_document
from rerank_integrations.langchain.vector_store import ColBERTVectorStore


def retrieve_and_rerank(
    retriever: BaseRetriever,
    base: RetrieverLike,
    compressor: Compressor,
    queries: Sequence[str],
    configs: Sequence[RunnableConfig],
    **kwargs: Any,
) -> list[list[Document]]:
    """Return the documents of each query, with one retriever run per query; an error closes all the runs."""
    with ExitStack() as runs:
        opened = [
            runs.enter_context(_run(retriever, query, config, kwargs))
            for query, config in zip(queries, configs, strict=True)
        ]
        base_configs = [_base_config(run, config) for config, (run, _) in zip(configs, opened, strict=True)]
        hits = base.batch(list(queries), base_configs, **kwargs)
        # A query without documents is not reranked, as in a single call.
        with_hits = [number for number, documents in enumerate(hits) if documents]
        ranked = compressor.compress_many(
            [hits[number] for number in with_hits],
            [queries[number] for number in with_hits],
            [opened[number][0].get_child("compressor") for number in with_hits],
        )
        for number, documents in zip(with_hits, ranked, strict=True):
            opened[number][1].extend(documents)
    return [list(outputs) for _, outputs in opened]


def _base_config(run: CallbackManagerForRetrieverRun, config: RunnableConfig) -> RunnableConfig:
    """Return the base retriever's config: the callbacks that ``invoke`` gives it, and how many may run at once."""
    base_config: RunnableConfig = {"callbacks": run.get_child("base_retriever")}
    if config.get("max_concurrency") is not None:
        base_config["max_concurrency"] = config["max_concurrency"]
    return base_config


@contextmanager
def _run(
    retriever: BaseRetriever, query: str, config: RunnableConfig, kwargs: Mapping[str, object]
) -> Iterator[tuple[CallbackManagerForRetrieverRun, list[Document]]]:
    """Open a retriever's run as ``BaseRetriever.invoke`` does, and close it with its outputs or with the error."""
    manager = CallbackManager.configure(
        config.get("callbacks"),
        None,
        inheritable_tags=config.get("tags"),
        local_tags=retriever.tags,
        inheritable_metadata={**(config.get("metadata") or {}), **retriever._get_ls_params(**kwargs)},
        local_metadata=retriever.metadata,
    )
    run: CallbackManagerForRetrieverRun = manager.on_retriever_start(
        None, query, name=config.get("run_name") or retriever.get_name(), run_id=config.get("run_id")
    )
    outputs: list[Document] = []
    try:
        yield run, outputs
    except BaseException as error:
        run.on_retriever_error(error)
        raise
    run.on_retriever_end(outputs)


class ColBERTRetriever(BaseRetriever):
    """Retrieve the passages of a `ColBERTIndex`.

    A document has the passage's id, text and metadata, with ``relevance_score`` and ``relevance_rank`` added.

    Parameters
    ----------
    index
        An open index, or a path, which is opened read-only; or a mapping of ``path`` and ``model``, for an index that
        was made with a model in a folder.
    k
        How many documents to return; ``invoke(query, k=3)`` overrides it for one call.
    filter
        A Mongo-style condition on the metadata, applied before the search; ``invoke(query, filter={...})``
        replaces it for one call, and ``filter={}`` removes it for one call.
    name, tags, metadata
        LangChain's own.

    Raises
    ------
    InvalidInputError
        For a negative `k`, or an index of a wrong kind.
    """

    index: ColBERTIndex
    k: int = 10
    filter: dict[str, Any] | None = None

    def __init__(
        self,
        *,
        index: IndexLike,
        k: int = 10,
        filter: Where | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        require_count(k, "k")
        super().__init__(  # type: ignore[call-arg]
            index=as_index(index), k=k, filter=filter, name=name, tags=tags, metadata=metadata
        )

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        model: ColBERTLike,
        metadatas: Iterable[Metadata] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        k: int = 10,
        filter: Where | None = None,
    ) -> Self:
        """Add texts to an index, and return a retriever over it; see `ColBERTVectorStore.from_texts`."""
        require_count(k, "k")
        store = ColBERTVectorStore.from_texts(texts, model, metadatas, ids=ids, path=path, nbits=nbits)
        return cls(index=store.index, k=k, filter=filter)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        model: ColBERTLike,
        *,
        ids: Iterable[str | None] | None = None,
        path: str | os.PathLike[str] | None = None,
        nbits: int | None = None,
        k: int = 10,
        filter: Where | None = None,
    ) -> Self:
        """Add documents to an index, and return a retriever over it; see `ColBERTVectorStore.from_documents`."""
        require_count(k, "k")
        store = ColBERTVectorStore.from_documents(documents, model, ids=ids, path=path, nbits=nbits)
        return cls(index=store.index, k=k, filter=filter)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: ``dumpd`` writes the index's path, never its content."""
        return True

    @property
    def lc_attributes(self) -> dict[str, object]:
        """The specification that ``dumpd`` writes in place of the open index."""
        return {"index": searched_index_spec(self.index)}

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return LangSmithRetrieverParams(
            ls_retriever_name="colbert",
            ls_vector_store_provider="ColBERTIndex",
            ls_embedding_provider="rerank_integrations",
            ls_embedding_model=model_name(self.index.model),
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Where | None = None,
    ) -> list[Document]:
        return self._search(query, k, filter)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Where | None = None,
    ) -> list[Document]:
        return await run_blocking(self._search, query, k, filter)

    def _search(self, query: str, k: int | None, where: Where | None) -> list[Document]:
        hits = self.index.search(query, self.k if k is None else k, where=self.filter if where is None else where)
        return [hit_to_document(hit) for hit in hits]


class RerankingRetriever(BaseRetriever):
    """Any retriever, followed by a reranker or another document compressor.

    Parameters
    ----------
    base_retriever
        A retriever, or any runnable from a query to documents. It gets the arguments of the call: in
        ``invoke(query, k=50)``, ``k`` is the number of candidates.
    compressor
        For example `ColBERTRerank` or `CrossEncoderRerank`.
    """

    base_retriever: RetrieverLike
    compressor: BaseDocumentCompressor

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True; whether it can be written depends on its two parts."""
        return True

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: object
    ) -> list[Document]:
        documents = self.base_retriever.invoke(
            query, config={"callbacks": run_manager.get_child("base_retriever")}, **kwargs
        )
        if not documents:
            return []
        callbacks = run_manager.get_child("compressor")
        return list(self.compressor.compress_documents(documents, query, callbacks=callbacks))

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        """Answer several queries: their candidates are scored together, in batches of all of them.

        With ``return_exceptions``, or with a compressor of another package, they are answered one by one, on threads.
        """
        ours = getattr(type(self.compressor), "compress_documents", None) is Compressor.compress_documents
        if not inputs or return_exceptions or not isinstance(self.compressor, Compressor) or not ours:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        configs = get_config_list(config, len(inputs))
        return retrieve_and_rerank(self, self.base_retriever, self.compressor, inputs, configs, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: object
    ) -> list[Document]:
        documents = await self.base_retriever.ainvoke(
            query, config={"callbacks": run_manager.get_child("base_retriever")}, **kwargs
        )
        if not documents:
            return []
        callbacks = run_manager.get_child("compressor")
        return list(await self.compressor.acompress_documents(documents, query, callbacks=callbacks))
