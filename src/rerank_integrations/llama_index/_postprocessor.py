"""The base of every postprocessor of this package: events, threads and new nodes around its ranking."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypedDict

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import GetPydanticSchema
from pydantic_core.core_schema import any_schema
from typing_extensions import Unpack

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.ranking import require_cut
from rerank_integrations.core.reranking import Ranked
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._convert import ranked_node, require_nodes

_dispatcher = get_dispatcher(__name__)

Report: TypeAlias = Callable[[list[NodeWithScore]], None]

# A field's mark: its value was checked before pydantic sees it, and the type is for readers and editors alone.
CHECKED_BEFORE = GetPydanticSchema(lambda _source, _handler: any_schema())


class CallOptions(TypedDict, total=False):
    """Keyword arguments of one call, in place of the component's own options."""

    top_n: int | None


class Postprocessor(BaseNodePostprocessor):
    """A node postprocessor that ranks; subclasses define how."""

    top_n: int | None = Field(default=5, description="How many nodes to keep; None keeps all.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether the score before reranking is kept in the metadata."
    )
    scores_in_metadata: bool = Field(
        default=True, description="Whether scores and notes go into the metadata of the nodes."
    )

    def postprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
        **options: Unpack[CallOptions],
    ) -> list[NodeWithScore]:
        """Return new nodes, best first; `nodes` are not changed.

        Parameters
        ----------
        nodes
            The candidates; an iterator is consumed.
        query_bundle, query_str
            The query, in one of these two forms.
        options
            ``top_n`` for this call, in place of the component's own.

        Raises
        ------
        InvalidInputError
            For an empty query, or anything among the nodes that is not one.
        """
        return self._postprocess_nodes(nodes, _as_bundle(query_bundle, query_str), **options)

    async def apostprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
        **options: Unpack[CallOptions],
    ) -> list[NodeWithScore]:
        """Do what `postprocess_nodes` does, on a thread unless the scorer waits for a service."""
        return await self._apostprocess_nodes(nodes, _as_bundle(query_bundle, query_str), **options)

    def _postprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        **options: Unpack[CallOptions],
    ) -> list[NodeWithScore]:
        listed = _as_list(nodes)
        with self._events(listed, query_bundle, options) as report:
            checked = require_nodes(listed)
            ranked = self._ranked_nodes(checked, self._rank(_query_text(query_bundle), checked, **options))
            report(ranked)
        return ranked

    async def _apostprocess_nodes(
        self,
        nodes: Iterable[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        **options: Unpack[CallOptions],
    ) -> list[NodeWithScore]:
        if self._needs_thread() or _overrides_ranking(type(self)):
            # The whole of it, so that spans, events and what a subclass overrides are the same as in a sync call.
            return await run_blocking(self._postprocess_nodes, nodes, query_bundle, **options)
        return await self._await_nodes(nodes, query_bundle, **options)

    @_dispatcher.span
    async def _await_nodes(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None, **options: Unpack[CallOptions]
    ) -> list[NodeWithScore]:
        """Do as `_postprocess_nodes` with a scorer that waits for a service, without a thread."""
        listed = _as_list(nodes)
        with self._events(listed, query_bundle, options) as report:
            checked = require_nodes(listed)
            ranked = self._ranked_nodes(checked, await self._arank(_query_text(query_bundle), checked, **options))
            report(ranked)
        return ranked

    def _ranked_nodes(self, nodes: list[NodeWithScore], ranked: list[Ranked]) -> list[NodeWithScore]:
        return [
            ranked_node(
                nodes[best.place],
                best,
                rank,
                keep_retrieval_score=self.keep_retrieval_score,
                scores_in_metadata=self.scores_in_metadata,
            )
            for rank, best in enumerate(ranked, start=1)
        ]

    def _needs_thread(self) -> bool:
        """Return whether async calls must run `_rank` on a thread; else they await `_arank`."""
        return True

    async def _arank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        """Do as `_rank`, where no thread is needed."""
        raise NotImplementedError

    def _model_name(self) -> str:
        """Return the name of the model for events."""
        raise NotImplementedError

    def _rank(self, query: str, nodes: list[NodeWithScore], **options: Unpack[CallOptions]) -> list[Ranked]:
        """Return which nodes are kept, best first."""
        raise NotImplementedError

    @contextmanager
    def _events(
        self, nodes: Iterable[NodeWithScore], query_bundle: QueryBundle | None, options: CallOptions
    ) -> Iterator[Report]:
        """Report start and end to both of LlamaIndex's event systems; after an error the end has no nodes."""
        if unknown := sorted(options.keys() - CallOptions.__annotations__.keys()):
            raise TypeError(f"{type(self).__name__}.postprocess_nodes() got unexpected keyword arguments {unknown}")
        require_cut(options.get("top_n"), None)
        if not isinstance(query_bundle, QueryBundle | None):
            kind = type(query_bundle).__name__
            raise InvalidInputError(f"query_bundle is of type {kind}; expected QueryBundle, or text as query_str")
        shown = [node for node in nodes if isinstance(node, NodeWithScore)] if isinstance(nodes, list) else []
        limit = options.get("top_n", self.top_n)
        top_n = len(shown) if limit is None else limit
        name = self._model_name()
        payload: dict[str, object] = {
            EventPayload.NODES: shown,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str if query_bundle else None,
            EventPayload.TOP_K: top_n,
        }
        ranked: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=shown, top_n=top_n, model_name=name))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield ranked.extend
                event.on_end(payload={EventPayload.NODES: ranked})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=ranked))


def _overrides_ranking(kind: type[Postprocessor]) -> bool:
    """Return whether a subclass has its own `_postprocess_nodes`, which async calls then run too."""
    # Static, since LlamaIndex wraps the method in an object that is another one at each access.
    name = "_postprocess_nodes"
    return inspect.getattr_static(kind, name) is not inspect.getattr_static(Postprocessor, name)


def _query_text(query_bundle: QueryBundle | None) -> str:
    return query_bundle.query_str if query_bundle else ""


def _as_list(nodes: Iterable[NodeWithScore]) -> Iterable[NodeWithScore]:
    """Return `nodes` as a list, so that an iterator can be both reported and ranked; anything else as it is."""
    return list(nodes) if isinstance(nodes, Iterable) and not isinstance(nodes, str | NodeWithScore) else nodes


def _as_bundle(query_bundle: QueryBundle | None, query_str: str | None) -> QueryBundle | None:
    if query_bundle is not None and query_str is not None:
        raise InvalidInputError("both query_bundle and query_str are given; expected one of them")
    return query_bundle if query_str is None else QueryBundle(query_str)
