"""Hits and scores as LlamaIndex nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from rerank_integrations.core.reranking import Candidate, Ranked
from rerank_integrations.core.reranking.metadata import copied, is_reranking_key, with_ranking, without_ranking
from rerank_integrations.core.types import Hit
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.llama_index._nodes import passage_to_node


def hit_to_node(hit: Hit) -> NodeWithScore:
    """Return the passage's node with the hit's score."""
    return NodeWithScore(node=passage_to_node(hit), score=hit.score)


def ranked_node(
    retrieved: NodeWithScore, ranked: Ranked, rank: int, *, keep_retrieval_score: bool, scores_in_metadata: bool
) -> NodeWithScore:
    """Return a copy of the node with the reranking's note in its metadata, hidden from every text a model reads."""
    node = retrieved.node
    if scores_in_metadata:
        metadata, hidden = with_ranking(node.metadata, ranked, rank, keep_retrieval_score=keep_retrieval_score)
        # A user's value that had to move goes with the name.
        hidden |= {key for key in metadata if is_reranking_key(key) and key not in node.metadata}
    else:
        metadata, hidden = copied(node.metadata), frozenset()
    copy = node.model_copy(
        update={
            "metadata": metadata,
            "relationships": dict(node.relationships),
            "excluded_embed_metadata_keys": sorted({*node.excluded_embed_metadata_keys} | hidden),
            "excluded_llm_metadata_keys": sorted({*node.excluded_llm_metadata_keys} | hidden),
        }
    )
    # A copy, because a class of the user's own may have fields of its own.
    return retrieved.model_copy(update={"node": copy, "score": ranked.score})


def require_nodes(nodes: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    """Return `nodes` as a list.

    Raises
    ------
    InvalidInputError
        If it is something else, or contains something other than nodes with scores.
    """
    if isinstance(nodes, str | NodeWithScore) or not isinstance(nodes, Iterable):
        raise InvalidInputError(f"nodes is one {type(nodes).__name__}; expected a list of NodeWithScore")
    listed = list(nodes)
    for number, node in enumerate(listed):
        if not isinstance(node, NodeWithScore):
            raise InvalidInputError(f"node number {number} is of type {type(node).__name__}; expected NodeWithScore")
    return listed


# One of LlamaIndex's modes, or its name.
MetadataModeLike: TypeAlias = MetadataMode | Literal["all", "embed", "llm", "none"]


def as_metadata_mode(mode: MetadataModeLike) -> MetadataMode:
    """Return the mode of that name.

    Raises
    ------
    InvalidInputError
        If there is no such mode.
    """
    try:
        return MetadataMode(mode)
    except ValueError:
        known = ", ".join(repr(member.value) for member in MetadataMode)
        raise InvalidInputError(f"metadata_mode is {mode!r}; expected one of {known}") from None


def candidates(nodes: Sequence[NodeWithScore], mode: MetadataMode) -> list[Candidate]:
    """Return the candidates for ranking: each node's id, its text in `mode`, and its retriever's score."""
    return [
        Candidate(
            item.node.node_id,
            read_text(item.node, mode),
            item.score,
            content=item.node.get_content(metadata_mode=MetadataMode.NONE),
        )
        for item in nodes
    ]


def read_text(node: BaseNode, mode: MetadataMode) -> str:
    """Return the node's text in `mode`, without the keys of rerankings, which ``ALL`` would show."""
    checked = as_metadata_mode(mode)
    if checked is MetadataMode.ALL:
        node = node.model_copy(update={"metadata": without_ranking(node.metadata)})
    return node.get_content(metadata_mode=checked)
