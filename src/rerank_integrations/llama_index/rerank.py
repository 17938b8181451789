"""Node postprocessors: rerank by ColBERT or by a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import Field, field_serializer
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from rerank_integrations.core.aio import run_blocking
from rerank_integrations.core.explain import explain
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.rerank import require_cut, rerank_order
from rerank_integrations.core.specs import (
    ColBERTLike,
    CrossEncoderLike,
    IndexLike,
    index_spec,
    load_cross_encoder,
    model_name,
    model_spec,
)
from rerank_integrations.core.stored import candidate_scorer, reranking_parts
from rerank_integrations.core.types import Scorer
from rerank_integrations.llama_index._convert import keeping_retrieval_score

_dispatcher = get_dispatcher(__name__)


class _Reranker(BaseNodePostprocessor):
    """What both rerankers share: they differ in their scorer alone."""

    model: Any = Field(description="The model that scores; written as its name or arguments.")
    top_n: int | None = Field(default=5, description="How many nodes to keep; None keeps all.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether the score before reranking is kept in the metadata."
    )
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.NONE, description="Which metadata is part of the scored text."
    )

    @field_serializer("model")
    def _serialize_model(self, model: Any) -> Any:
        return model_spec(model)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._events(nodes, query_bundle) as report:
            kept = self._rerank(nodes, query_bundle)
            report(kept)
        return kept

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._events(nodes, query_bundle) as report:
            kept = await run_blocking(self._rerank, nodes, query_bundle)
            report(kept)
        return kept

    def _rerank(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> list[NodeWithScore]:
        order = rerank_order(
            query_bundle.query_str if query_bundle else "",
            [found.node.get_content(metadata_mode=self.metadata_mode) for found in nodes],
            self._scorer(nodes),
            top_n=self.top_n,
        )
        return [NodeWithScore(node=self._node(nodes[place]), score=score) for place, score in order]

    def _node(self, found: NodeWithScore) -> BaseNode:
        return keeping_retrieval_score(found) if self.keep_retrieval_score else found.node

    def _scorer(self, nodes: list[NodeWithScore]) -> Scorer:
        scorer: Scorer = self.model
        return scorer

    @contextmanager
    def _events(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[Callable[[list[NodeWithScore]], None]]:
        """Report start and end to both of LlamaIndex's systems; on errors the end has no nodes."""
        top_n = len(nodes) if self.top_n is None else self.top_n
        name = model_name(self.model)
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str if query_bundle else None,
            EventPayload.TOP_K: top_n,
        }
        kept: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield kept.extend
                event.on_end(payload={EventPayload.NODES: kept})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=kept))


class ColBERTRerank(_Reranker):
    """Rerank nodes by ColBERT: MaxSim, summed over the query's tokens.

    Parameters
    ----------
    model
        A name, a path, a mapping of `ColBERTModel`'s arguments, or a loaded model; by default the index's.
    index
        An open index or a path. A node that it holds under the same id with the same text is scored from
        its stored vectors, so that only the query and the nodes it does not hold are encoded.
    top_n
        How many nodes to keep; ``None`` keeps all.
    keep_retrieval_score
        Whether the score before reranking goes into the metadata of the returned (copied) nodes, under
        ``retrieval_score``, which is excluded from the text for embedding and for the language model.
    metadata_mode
        Which metadata is part of the scored text; by default none, as in an index.
    callback_manager
        LlamaIndex's own.

    Raises
    ------
    InvalidInputError
        If neither a model nor an index is given, or an argument is of a wrong kind.
    """

    index: Any = Field(default=None, description="The index whose vectors are used; written as its path.")

    def __init__(
        self,
        model: ColBERTLike | None = None,
        index: IndexLike | None = None,
        top_n: int | None = 5,
        keep_retrieval_score: bool = False,
        metadata_mode: MetadataMode = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        require_cut(top_n, threshold=None)
        loaded, opened = reranking_parts(model, index)
        super().__init__(  # type: ignore[call-arg]
            model=loaded,
            index=opened,
            top_n=top_n,
            keep_retrieval_score=keep_retrieval_score,
            metadata_mode=metadata_mode,
            callback_manager=callback_manager or CallbackManager(),
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "ColBERTRerank"

    @field_serializer("index")
    def _serialize_index(self, index: Any) -> str | None:
        return index_spec(index)

    def _scorer(self, nodes: list[NodeWithScore]) -> Scorer:
        return candidate_scorer(self.model, self.index, [found.node.node_id for found in nodes])

    def explain(self, query: str, node: NodeWithScore | BaseNode) -> Explanation:
        """Tell which words of a node's scored text the query matched, as `rerank_integrations.explain` does."""
        return explain(query, node.get_content(metadata_mode=self.metadata_mode), self.model)


class CrossEncoderRerank(_Reranker):
    """Rerank nodes by a cross-encoder, which reads the query and a node together.

    Parameters
    ----------
    model
        A name, a path, a mapping of `CrossEncoderModel`'s arguments, a loaded model, or anything with
        ``score(query, texts)``.
    top_n, keep_retrieval_score, metadata_mode, callback_manager
        As for `ColBERTRerank`.
    """

    def __init__(
        self,
        model: CrossEncoderLike,
        top_n: int | None = 5,
        keep_retrieval_score: bool = False,
        metadata_mode: MetadataMode = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        require_cut(top_n, threshold=None)
        super().__init__(
            model=load_cross_encoder(model),
            top_n=top_n,
            keep_retrieval_score=keep_retrieval_score,
            metadata_mode=metadata_mode,
            callback_manager=callback_manager or CallbackManager(),
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "CrossEncoderRerank"
