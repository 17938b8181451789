"""Retrievers: one over an index, and one that follows any retriever by a reranker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import EllipsisType
from typing import Any, TypeVar

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

from rerank_integrations.core.checks import require_bool
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.index.fusion import require_search_type, require_weight
from rerank_integrations.core.index.storage.filters import compile_selection
from rerank_integrations.core.ranking import require_count, require_threshold
from rerank_integrations.core.reranking.relevance import hits_above
from rerank_integrations.core.reranking.specs import ColBERTLike, IndexLike, model_name, searched_index_spec
from rerank_integrations.core.types import Metadata, SearchType, Where
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain._compressor import Compressor, overrides
from rerank_integrations.langchain._convert import hit_to_document, scored_document
from rerank_integrations.langchain._spans import under_run
from rerank_integrations.langchain.vector_store import ColBERTVectorStore

CompressorT = TypeVar("CompressorT", bound=BaseDocumentCompressor)


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

    A document has the passage's id, text and metadata, with ``relevance_score`` and ``relevance_rank`` added: a
    `RankedDocument`, which equals another one of the same passage whatever its score.

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
    search_type
        ``"colbert"``, ``"bm25"`` or ``"hybrid"``, as in `ColBERTIndex.search`; ``invoke(query, search_type="bm25")``
        replaces it for one call. With the last two the metadata also has ``search_type``, and of a hybrid search
        ``colbert_score``, ``bm25_score`` and ``bm25_weight``.
    bm25_weight
        BM25's share of a hybrid score, 0 to 1; ``None`` for the index's own.
    score_threshold
        Of these documents return only those of at least this score (inclusive), a MaxSim summed over the query's
        tokens unless `search_type` says otherwise; ``invoke(query, score_threshold=...)`` replaces it for one call, and
        minus infinity removes it for one.
    scores_in_metadata
        Whether the score and the rank go into the metadata.
    name, tags, metadata
        LangChain's own.

    Raises
    ------
    InvalidInputError
        For a negative `k`, a threshold that is not a number, a bad filter, or an index of a wrong kind.
    """

    index: ColBERTIndex
    k: int = 10
    filter: dict[str, Any] | None = None
    score_threshold: float | None = None
    scores_in_metadata: bool = True
    search_type: SearchType = "colbert"
    bm25_weight: float | None = None

    def __init__(
        self,
        *,
        index: IndexLike,
        k: int = 10,
        filter: Where | None = None,
        score_threshold: float | None = None,
        scores_in_metadata: bool = True,
        search_type: SearchType = "colbert",
        bm25_weight: float | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        _require_options(k, filter)
        super().__init__(  # type: ignore[call-arg]
            index=as_index(index),
            k=k,
            filter=filter,
            score_threshold=require_threshold(score_threshold, "score_threshold"),
            scores_in_metadata=require_bool(scores_in_metadata, "scores_in_metadata"),
            search_type=require_search_type(search_type),
            bm25_weight=require_weight(bm25_weight, search_type),
            name=name,
            tags=tags,
            metadata=metadata,
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
        pool_factor: float | None = None,
        k: int = 10,
        filter: Where | None = None,
    ) -> Self:
        """Add texts to an index, and return a retriever over it; see `ColBERTVectorStore.from_texts`."""
        # Before anything is stored.
        _require_options(k, filter)
        store = ColBERTVectorStore.from_texts(
            texts, model, metadatas, ids=ids, path=path, nbits=nbits, pool_factor=pool_factor
        )
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
        pool_factor: float | None = None,
        k: int = 10,
        filter: Where | None = None,
    ) -> Self:
        """Add documents to an index, and return a retriever over it; see `ColBERTVectorStore.from_documents`."""
        # Before anything is stored.
        _require_options(k, filter)
        store = ColBERTVectorStore.from_documents(
            documents, model, ids=ids, path=path, nbits=nbits, pool_factor=pool_factor
        )
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
        score_threshold: float | None = None,
        search_type: SearchType | None = None,
    ) -> list[Document]:
        per_call = require_threshold(score_threshold, "score_threshold")
        least = self.score_threshold if per_call is None else per_call
        kind = self.search_type if search_type is None else search_type
        where = self.filter if filter is None else filter
        # The weight of the constructor is for its own kind of search.
        weight = self.bm25_weight if kind == "hybrid" else None
        with under_run(run_manager.run_id):
            hits = self.index.search(
                query, self.k if k is None else k, where=where, search_type=kind, bm25_weight=weight
            )
        convert = scored_document if self.scores_in_metadata else hit_to_document
        return [convert(hit) for hit in hits_above(hits, least)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # A subclass that defines the synchronous method alone means both.
        return await run_blocking(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs)


def _require_options(k: int, where: Where | None) -> None:
    require_count(k, "k")
    if where is not None:
        compile_selection(where, None)


class RerankingRetriever(BaseRetriever):
    """Any retriever, followed by a reranker or another document compressor.

    ``invoke(query, top_n=2)`` overrides the reranker's `top_n` for one call. The other arguments of a call go to the
    base retriever: in ``invoke(query, k=50)``, ``k`` is the number of candidates.

    Parameters
    ----------
    base_retriever
        A retriever, or any runnable from a query to documents. An argument of a call that a retriever would drop,
        because it takes none, is an `InvalidInputError`.
    compressor
        For example `ColBERTRerank` or `CrossEncoderRerank`. With a compressor of another package, ``top_n`` in a call
        is an `InvalidInputError`.
    name, tags, metadata
        LangChain's own.
    """

    base_retriever: RetrieverLike
    compressor: BaseDocumentCompressor

    def __init__(
        self,
        *,
        base_retriever: RetrieverLike,
        compressor: BaseDocumentCompressor,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(  # type: ignore[call-arg]
            base_retriever=base_retriever, compressor=compressor, name=name, tags=tags, metadata=metadata
        )

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True; whether it can be written depends on its two parts."""
        return True

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        top_n: int | EllipsisType | None = ...,
        **kwargs: object,
    ) -> list[Document]:
        compressor = _with_top_n(self.compressor, top_n)
        _require_arguments_of(self.base_retriever, kwargs)
        documents = self.base_retriever.invoke(
            query, config={"callbacks": run_manager.get_child("base_retriever")}, **kwargs
        )
        if not documents:
            return []
        return list(compressor.compress_documents(documents, query, callbacks=run_manager.get_child("compressor")))

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
        one_by_one = (
            not inputs
            or return_exceptions
            or overrides(self, RerankingRetriever, "_get_relevant_documents")
            or overrides(self.compressor, Compressor, "compress_documents")
        )
        if one_by_one or not isinstance(self.compressor, Compressor):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        configs = get_config_list(config, len(inputs))
        compressor = _with_top_n(self.compressor, kwargs.pop("top_n", ...))
        _require_arguments_of(self.base_retriever, kwargs)
        return retrieve_and_rerank(self, self.base_retriever, compressor, inputs, configs, **kwargs)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        if overrides(self, RerankingRetriever, "_get_relevant_documents"):
            # A subclass that defines the synchronous method alone means both.
            return await run_blocking(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs)
        compressor = _with_top_n(self.compressor, kwargs.pop("top_n", ...))
        _require_arguments_of(self.base_retriever, kwargs)
        documents = await self.base_retriever.ainvoke(
            query, config={"callbacks": run_manager.get_child("base_retriever")}, **kwargs
        )
        if not documents:
            return []
        callbacks = run_manager.get_child("compressor")
        return list(await compressor.acompress_documents(documents, query, callbacks=callbacks))


def _require_arguments_of(base: RetrieverLike, arguments: Mapping[str, object]) -> None:
    """Refuse arguments of a call that LangChain would not hand to the base retriever."""
    if arguments and isinstance(base, BaseRetriever) and not base._expects_other_args:
        raise InvalidInputError(
            f"{', '.join(sorted(arguments))} in the call of a RerankingRetriever, whose base retriever "
            f"{type(base).__name__} takes no arguments; expected top_n alone"
        )


def _with_top_n(compressor: CompressorT, top_n: int | EllipsisType | None) -> CompressorT:
    """Return the compressor for one call, with another `top_n` unless that is ``...``."""
    if isinstance(top_n, EllipsisType):
        return compressor
    if not isinstance(compressor, Compressor):
        raise InvalidInputError(
            f"top_n is {top_n!r} for this call, and the compressor is a {type(compressor).__name__}; "
            "expected a reranker of this package, or the compressor's own option"
        )
    return compressor.with_top_n(top_n)
