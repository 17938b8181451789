"""What every postprocessor of this package does around its ranking: events, threads, new nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import GetPydanticSchema
from pydantic_core.core_schema import any_schema

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.reranking import Ranked
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._convert import node_list, ranked_node

_dispatcher = get_dispatcher(__name__)

# A field's mark: its value was checked before pydantic sees it, and the type is for readers and editors alone.
CHECKED_BEFORE = GetPydanticSchema(lambda _source, _handler: any_schema())


class Postprocessor(BaseNodePostprocessor):
    """A node postprocessor that ranks; subclasses say how."""

    top_n: int | None = Field(default=5, description="How many nodes to keep; None keeps all.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether the score before reranking is kept in the metadata."
    )

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        given = _kept(nodes)
        with self._events(given, query_bundle) as report:
            kept = self._rerank(given, query_bundle)
            report(kept)
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        given = _kept(nodes)
        with self._events(given, query_bundle) as report:
            kept = await run_blocking(self._rerank, given, query_bundle)
            report(kept)
        return kept

    def _rerank(self, nodes: Any, query_bundle: QueryBundle | None) -> list[NodeWithScore]:
        given = node_list(nodes)
        ranked = self._rank(query_bundle.query_str if query_bundle else "", given)
        return [
            ranked_node(given[one.place], one, rank, keep_retrieval_score=self.keep_retrieval_score)
            for rank, one in enumerate(ranked, start=1)
        ]

    def _named(self) -> str:
        """Return the name of the model for events."""
        raise NotImplementedError

    def _rank(self, query: str, nodes: list[NodeWithScore]) -> list[Ranked]:
        """Return which nodes are kept, best first."""
        raise NotImplementedError

    @contextmanager
    def _events(self, nodes: Any, query_bundle: QueryBundle | None) -> Iterator[Callable[[list[NodeWithScore]], None]]:
        """Report start and end to both of LlamaIndex's systems; on errors the end has no nodes."""
        if not isinstance(query_bundle, QueryBundle | None):
            kind = type(query_bundle).__name__
            raise InvalidInputError(f"query_bundle is of type {kind}; expected QueryBundle, or text as query_str")
        shown = [node for node in nodes if isinstance(node, NodeWithScore)] if isinstance(nodes, list) else []
        top_n = len(shown) if self.top_n is None else self.top_n
        name = self._named()
        payload: dict[str, Any] = {
            EventPayload.NODES: shown,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str if query_bundle else None,
            EventPayload.TOP_K: top_n,
        }
        kept: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=shown, top_n=top_n, model_name=name))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield kept.extend
                event.on_end(payload={EventPayload.NODES: kept})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=kept))


def _kept(nodes: Any) -> Any:
    """Return `nodes` as a list, so that an iterator can be both reported and ranked; what is none stays."""
    return list(nodes) if isinstance(nodes, Iterable) and not isinstance(nodes, str | NodeWithScore) else nodes
