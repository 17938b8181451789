"""LlamaIndex nodes as passages, and stored passages as the nodes that they were."""

from __future__ import annotations

from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    RelatedNodeType,
    TextNode,
)
from llama_index.core.storage.docstore.utils import json_to_doc

from rerank_integrations.core.structure import STRUCTURE_KEY, with_structure, without_structure
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import InvalidInputError

_SOURCE_KEY = "ref_doc_id"
# The passage has fields of its own for these, and the index has its own vectors.
_PASSAGE_FIELDS = {"id_", "text", "metadata", "embedding"}


def node_to_passage(node: BaseNode) -> Passage:
    """Return the passage that stores a node, so that `ColBERTRetriever` returns the node whole.

    The passage has the node's id, text and metadata. What else the node has (class, relationships, excluded metadata
    keys, templates, character offsets, an image) is stored beside the metadata, under a reserved key that no node
    from a retriever shows. The node's embedding is not stored.

    Parameters
    ----------
    node
        Any node of LlamaIndex: a ``TextNode``, ``Document``, ``IndexNode``, ``ImageNode`` or ``Node``. A class of your
        own comes back as the one of these that it derives from, as from a document store of LlamaIndex.

    Raises
    ------
    InvalidInputError
        If `node` is something else, or has a value that cannot be stored, or the reserved key in its metadata.
    """
    if not isinstance(node, BaseNode):
        raise InvalidInputError(f"a node is of type {type(node).__name__}; expected a node of LlamaIndex")
    try:
        fields = node.model_dump(mode="json", exclude=_PASSAGE_FIELDS)
    except ValueError as error:
        raise InvalidInputError(f"node {node.node_id!r} cannot be stored: {error}") from error
    # Classes add their text after the exclusion.
    fields = {name: value for name, value in fields.items() if name not in _PASSAGE_FIELDS}
    if isinstance(fields.get("text_resource"), dict):
        fields["text_resource"] = {**fields["text_resource"], "text": None}
    # A node without a source is its own document, which is how an ingestion pipeline names it.
    structure = {TYPE_KEY: node.get_type(), _SOURCE_KEY: node.ref_doc_id or node.node_id, DATA_KEY: fields}
    metadata = with_structure(node.metadata, structure, node.node_id)
    return Passage(node.node_id, node.get_content(MetadataMode.NONE), metadata)


def passage_to_node(passage: Passage | Hit) -> BaseNode:
    """Return the node that `node_to_passage` stored, or a text node for any other passage."""
    structure = passage.metadata.get(STRUCTURE_KEY)
    if structure is None:
        return _plain_node(passage)
    fields: dict[str, Any] = {
        **structure[DATA_KEY],
        "id_": passage.id,
        "metadata": without_structure(passage.metadata),
    }
    if "text_resource" not in fields:
        fields["text"] = passage.text
    elif fields["text_resource"] is not None:
        fields["text_resource"] = {**fields["text_resource"], "text": passage.text}
    return json_to_doc({TYPE_KEY: structure[TYPE_KEY], DATA_KEY: fields})


def source_filter(ref_doc_ids: list[str]) -> dict[str, object]:
    """Return the filter for the passages of these source documents."""
    return {
        "$or": [
            {f"{STRUCTURE_KEY}.{_SOURCE_KEY}": {"$in": ref_doc_ids}},
            # A node has any key of the user's own; a passage that was no node has its source there.
            {STRUCTURE_KEY: {"$exists": False}, _SOURCE_KEY: {"$in": ref_doc_ids}},
        ]
    }


def _plain_node(passage: Passage | Hit) -> TextNode:
    """Return a text node with the passage's id, text and metadata; ``ref_doc_id`` becomes its source."""
    source = passage.metadata.get(_SOURCE_KEY)
    relationships: dict[NodeRelationship, RelatedNodeType] = (
        {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} if isinstance(source, str) else {}
    )
    # An opaque id is useless to a language model.
    hidden = [_SOURCE_KEY] if relationships else []
    return TextNode(
        id_=passage.id,
        text=passage.text,
        metadata=dict(passage.metadata),
        relationships=relationships,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=list(hidden),
    )
