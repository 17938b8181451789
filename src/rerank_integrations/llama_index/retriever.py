"""A retriever over a `ColBERTIndex`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from rerank_integrations.core.checks import require_texts
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.index.fusion import require_search_type, require_weight
from rerank_integrations.core.ranking import require_count, require_threshold
from rerank_integrations.core.reranking.relevance import hits_above
from rerank_integrations.core.reranking.specs import IndexLike
from rerank_integrations.core.types import Hit, SearchType
from rerank_integrations.llama_index._convert import hit_to_node
from rerank_integrations.llama_index._filters import filters_to_where


class ColBERTRetriever(BaseRetriever):
    """Retrieve the passages of a `ColBERTIndex` as nodes.

    Nodes that `node_to_passage` stored come back whole, other passages as text nodes with their ids and metadata.

    A query that has ``custom_embedding_strs``, as ``HyDEQueryTransform`` gives them, is searched by these texts; the
    score is their mean.

    Parameters
    ----------
    index
        An open index, or a path, which is opened read-only; or a mapping of ``path`` and ``model``, for an index that
        was made with a model in a folder.
    similarity_top_k
        How many nodes to return.
    filters
        Conditions on the metadata, applied before the search.
    callback_manager
        LlamaIndex's own.
    search_type
        ``"colbert"``, ``"bm25"`` or ``"hybrid"``, as in `ColBERTIndex.search`.
    bm25_weight
        BM25's share of a hybrid score, 0 to 1; ``None`` for the index's own.
    score_threshold
        Return only nodes of at least this score (inclusive), on the scale of the search: MaxSim, summed over the
        query's tokens, unless `search_type` says otherwise.

    Raises
    ------
    InvalidInputError
        For a negative `similarity_top_k`, a `score_threshold` that is no number, an index of a wrong kind, or a filter
        operator that cannot be had exactly.
    """

    def __init__(
        self,
        index: IndexLike,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        callback_manager: CallbackManager | None = None,
        *,
        search_type: SearchType = "colbert",
        bm25_weight: float | None = None,
        score_threshold: float | None = None,
    ) -> None:
        require_count(similarity_top_k, "similarity_top_k")
        require_threshold(score_threshold, "score_threshold")
        filters_to_where(filters)
        require_weight(bm25_weight, require_search_type(search_type))
        self.index: ColBERTIndex = as_index(index)
        self.similarity_top_k = similarity_top_k
        self.filters = filters
        self.search_type = search_type
        self.bm25_weight = bm25_weight
        self.score_threshold = score_threshold
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = search_texts(
            self.index,
            query_bundle.query_str,
            query_bundle.custom_embedding_strs,
            self.similarity_top_k,
            where=filters_to_where(self.filters),
            search_type=self.search_type,
            bm25_weight=self.bm25_weight,
        )
        # The attribute may have been set since the last call.
        least = require_threshold(self.score_threshold, "score_threshold")
        return [hit_to_node(hit) for hit in hits_above(hits, least)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await run_blocking(self._retrieve, query_bundle)


def search_texts(
    index: ColBERTIndex,
    query: str,
    texts: Sequence[str] | None,
    k: int,
    *,
    where: Mapping[str, object] | None = None,
    ids: Sequence[str] | None = None,
    search_type: SearchType = "colbert",
    bm25_weight: float | None = None,
) -> list[Hit]:
    """Search by `texts`, the ``custom_embedding_strs`` of a query, scored by their mean; by `query` without any.

    BM25 reads `query` in any case, since these texts are there to be embedded.
    """
    if texts is None or search_type == "bm25":
        return index.search(query, k, where=where, ids=ids, search_type=search_type, bm25_weight=bm25_weight)
    require_texts(texts, "custom_embedding_str")
    vectors = [index.encode_query(text) for text in texts if text.strip()]
    if not vectors:
        return []
    # MaxSim is a sum over query tokens, so the tokens of all texts together give the sum over the texts.
    together = np.concatenate(vectors)
    if search_type == "hybrid":
        return index.search_encoded(together, k, where=where, ids=ids, text=query, bm25_weight=bm25_weight)
    hits = index.search_encoded(together, k, where=where, ids=ids)
    return [replace(hit, score=hit.score / len(vectors)) for hit in hits]
