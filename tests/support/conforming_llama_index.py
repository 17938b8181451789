"""A LlamaIndex reranker and a retriever that pass every check, in steps that a broken one can override."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from conforming_langchain import overlap
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict, PrivateAttr


class GoodReranker(BaseNodePostprocessor):
    model_config = ConfigDict(extra="forbid")

    top_n: int = 3
    _hook: Callable[[], None] | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        return cls.__name__

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> GoodReranker:
        return cls(top_n=data["top_n"])

    def _postprocess_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("no query was given")
        listed = list(nodes)
        with self.callback_manager.event(CBEventType.RERANKING, payload={EventPayload.NODES: listed}) as event:
            if self._hook:
                self._hook()
            ranked = self.rank(listed, query_bundle.query_str)
            event.on_end(payload={EventPayload.NODES: ranked})
        return ranked

    def rank(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        unique = list({node.node.node_id: node for node in nodes}.values())
        results = [self.result(node, overlap(query, node.node.get_content())) for node in unique]
        return sorted(results, key=lambda node: -node.score)[: self.top_n]

    def result(self, node: NodeWithScore, score: float) -> NodeWithScore:
        return NodeWithScore(node=node.node.model_copy(update={"metadata": dict(node.node.metadata)}), score=score)


class GoodRetriever(BaseRetriever):
    def __init__(self, nodes: list[TextNode], similarity_top_k: int = 3) -> None:
        super().__init__()
        self.nodes, self.similarity_top_k = nodes, similarity_top_k
        self._hook: Callable[[], None] | None = None

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._hook:
            self._hook()
        nodes = [NodeWithScore(node=node) for node in self.nodes]
        return GoodReranker(top_n=self.similarity_top_k).rank(nodes, query_bundle.query_str)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        import asyncio

        return await asyncio.to_thread(self._retrieve, query_bundle)
