"""Hits and scores as LlamaIndex nodes."""

from __future__ import annotations

from llama_index.core.schema import (
    BaseNode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    RelatedNodeType,
    TextNode,
)

from rerank_integrations.core.metadata import with_fields
from rerank_integrations.core.types import Hit

_SOURCE_KEY = "ref_doc_id"


def hit_to_node(hit: Hit) -> NodeWithScore:
    """Return a text node with the passage's id, text and metadata; ``ref_doc_id`` becomes its source."""
    source = hit.metadata.get(_SOURCE_KEY)
    relationships: dict[NodeRelationship, RelatedNodeType] = (
        {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if isinstance(source, str) else {}
    )
    # An opaque id tells a language model nothing.
    hidden = [_SOURCE_KEY] if relationships else []
    node = TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=dict(hit.metadata),
        relationships=relationships,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=list(hidden),
    )
    return NodeWithScore(node=node, score=hit.score)


def keeping_retrieval_score(found: NodeWithScore) -> BaseNode:
    """Return a copy of the node with ``retrieval_score`` in its metadata, in no text that a model reads."""
    node = found.node
    metadata = with_fields(node.metadata, retrieval_score=found.score)
    written = {*metadata} - {*node.metadata} | {"retrieval_score"}
    return node.model_copy(
        update={
            "metadata": metadata,
            "excluded_embed_metadata_keys": sorted({*node.excluded_embed_metadata_keys} | written),
            "excluded_llm_metadata_keys": sorted({*node.excluded_llm_metadata_keys} | written),
        }
    )
