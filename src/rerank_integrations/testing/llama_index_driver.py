"""LlamaIndex's nodes, postprocessors, retrievers, events and serialisation, for the checks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rerank_integrations.testing.drivers import Component, Item, Native, NotApplicable, Recording, Run


class LlamaIndexDriver:
    """The checks' driver of LlamaIndex."""

    name = "LlamaIndex"

    def documents(self, items: Iterable[Item]) -> list[Native]:
        """Return new text nodes with a score of their retriever, as a postprocessor gets them."""
        from llama_index.core.schema import NodeWithScore, TextNode

        return [
            NodeWithScore(
                node=TextNode(
                    id_=item.id,
                    text=item.text,
                    metadata=dict(item.metadata),
                    # The marks of the checks are no part of the text that is scored.
                    excluded_embed_metadata_keys=list(item.metadata),
                    excluded_llm_metadata_keys=list(item.metadata),
                ),
                score=0.5,
            )
            for item in items
        ]

    def item(self, document: Native) -> Item:
        """Return what the checks read of a node."""
        return Item(document.node.node_id, document.node.get_content(), document.node.metadata, document.score)

    def metadata(self, document: Native) -> dict[str, Any]:
        """Return the metadata of a node itself."""
        return document.node.metadata  # type: ignore[no-any-return]

    def texts(self, document: Native) -> list[str]:
        """Return what a language model and an embedding model read of a node."""
        from llama_index.core.schema import MetadataMode

        return [document.node.get_content(mode) for mode in (MetadataMode.NONE, MetadataMode.LLM, MetadataMode.EMBED)]

    def snapshot(self, documents: Iterable[Native]) -> str:
        """Return everything about the nodes as text."""
        return "\n".join(repr((type(document).__name__, document.to_dict())) for document in documents)

    def rerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call ``postprocess_nodes``."""
        return list(reranker.postprocess_nodes(documents, query_str=query))

    async def arerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call ``apostprocess_nodes``."""
        return list(await reranker.apostprocess_nodes(documents, query_str=query))

    def retrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call ``retrieve``."""
        return list(retriever.retrieve(query))

    async def aretrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call ``aretrieve``."""
        return list(await retriever.aretrieve(query))

    @contextmanager
    def recording(self, component: Component) -> Iterator[Recording]:
        """Record by a handler of the component's callback manager, which every component of LlamaIndex has."""
        from llama_index.core.callbacks import CallbackManager

        recording = Recording()
        before = component.callback_manager
        component.callback_manager = CallbackManager([_handler(recording)])
        try:
            yield recording
        finally:
            component.callback_manager = before

    def written(self, component: Component) -> str:
        """Return the JSON of ``to_dict``.

        Raises
        ------
        unittest.SkipTest
            For a component that LlamaIndex defines no serialisation for, such as a retriever.
        """
        if not hasattr(component, "to_dict"):
            raise NotApplicable("LlamaIndex defines no serialisation of retrievers")
        return json.dumps(component.to_dict())

    def read(self, text: str, like: Component) -> Component:
        """Load what `written` returned."""
        return type(like).from_dict(json.loads(text))


def _handler(recording: Recording) -> Any:
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler

    class Recorder(BaseCallbackHandler):
        """Callback handler that notes each event of a reranking or a retrieval."""

        def on_event_start(
            self, event_type: Any, payload: Any = None, event_id: str = "", parent_id: str = "", **kwargs: Any
        ) -> str:
            if event_type in {CBEventType.RERANKING, CBEventType.RETRIEVE}:
                recording.runs[event_id] = Run(str(event_type))
            return event_id

        def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
            if event_type not in {CBEventType.RERANKING, CBEventType.RETRIEVE}:
                return
            run = recording.runs[event_id]
            run.ends += 1
            run.failed = EventPayload.EXCEPTION in (payload or {})
            if EventPayload.NODES in (payload or {}):
                run.ids = [node.node.node_id for node in payload[EventPayload.NODES]]

        def start_trace(self, trace_id: str | None = None) -> None:
            """Do nothing: traces group events."""

        def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
            """Do nothing: traces group events."""

    return Recorder([], [])
