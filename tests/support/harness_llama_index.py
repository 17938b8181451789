"""The behaviour suite's view of the LlamaIndex components."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from ranked_rows import Noted, Row

from rerank_integrations import Passage
from rerank_integrations.llama_index import CascadeRerank, ColBERTRerank, ColBERTRetriever, CrossEncoderRerank


class Harness:
    extra = "llama-index"
    colbert_rerank = ColBERTRerank
    cross_encoder_rerank = CrossEncoderRerank
    cascade_rerank = CascadeRerank
    text_with_metadata: dict[str, Any] = {"metadata_mode": MetadataMode.EMBED}  # noqa: RUF012

    def retriever(self, index: Any, k: int = 10, since: int | None = None) -> Any:
        filters = None if since is None else _filters("year", FilterOperator.GTE, since)
        return ColBERTRetriever(index, similarity_top_k=k, filters=filters)

    def retriever_with_bad_filter(self, index: Any) -> Any:
        return ColBERTRetriever(index, filters=_filters("year", FilterOperator.TEXT_MATCH, "2010"))

    def retrieve(self, retriever: Any, query: str) -> list[Row]:
        return _rows(retriever.retrieve(query))

    async def aretrieve(self, retriever: Any, query: str) -> list[Row]:
        return _rows(await retriever.aretrieve(query))

    def candidates(self, passages: list[Passage]) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(id_=passage.id, text=passage.text, metadata=json.loads(json.dumps(passage.metadata))),
                score=0.5,
            )
            for passage in passages
        ]

    def rerank(self, reranker: Any, candidates: Any, query: str) -> list[Row]:
        return _rows(reranker.postprocess_nodes(candidates, query_str=query))

    async def arerank(self, reranker: Any, candidates: Any, query: str) -> list[Row]:
        return _rows(await reranker.apostprocess_nodes(candidates, query_str=query))

    def noted(self, reranker: Any, candidates: Any, query: str) -> list[Noted]:
        return [
            Noted.of_metadata(found.node_id, found.score, found.node.metadata)
            for found in reranker.postprocess_nodes(candidates, query_str=query)
        ]

    def results(self, reranker: Any, candidates: Any, query: str) -> list[NodeWithScore]:
        return reranker.postprocess_nodes(candidates, query_str=query)

    def metadata(self, result: NodeWithScore) -> dict[str, Any]:
        return result.node.metadata

    def frozen(self, candidates: list[NodeWithScore]) -> str:
        return json.dumps([candidate.to_dict() for candidate in candidates])

    def dumps(self, component: Any) -> str:
        if isinstance(component, ColBERTRetriever):
            # LlamaIndex has no serialisation for retrievers; what a user would keep is this.
            index = {"path": str(component.index.path), "model": component.index.model.options()}
            return json.dumps([index, component.similarity_top_k])
        return component.to_json()

    def loads(self, text: str, like: Any) -> Any:
        if isinstance(like, ColBERTRetriever):
            return ColBERTRetriever(*json.loads(text))
        return type(like).from_json(text)


def _filters(key: str, operator: FilterOperator, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


def _rows(nodes: list[NodeWithScore]) -> list[Row]:
    assert all(type(found.score) is float for found in nodes)
    return [Row(found.node.node_id, found.score or 0.0, found.node.get_content()) for found in nodes]
