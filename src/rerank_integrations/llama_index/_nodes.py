"""LlamaIndex nodes as passages, and stored passages as the nodes that they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    RelatedNodeType,
    TextNode,
)
from llama_index.core.storage.docstore.utils import json_to_doc

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.structure import STRUCTURE_KEY, with_structure, without_structure
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import InvalidInputError

_SOURCE_KEY = "ref_doc_id"
# The hash of the source document, and how many nodes it has: a document is stored whole if as many nodes have its hash.
_HASH_KEY = "source_hash"
_COUNT_KEY = "source_nodes"
# The passage has fields of its own for these, and the index has its own vectors.
_PASSAGE_FIELDS = {"id_", "text", "metadata", "embedding"}


def require_list(items: object, name: str) -> None:
    """Raise an `InvalidInputError` unless `items`, the argument `name`, is an iterable of nodes or documents."""
    if isinstance(items, str | bytes | Mapping | BaseNode) or not isinstance(items, Iterable):
        raise InvalidInputError(f"{name} is of type {type(items).__name__}; expected a list")


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
    fields = _with_media(node, {name: value for name, value in fields.items() if name not in _PASSAGE_FIELDS})
    if isinstance(fields.get("text_resource"), dict):
        fields["text_resource"] = {**fields["text_resource"], "text": None}
    # A node without a source is its own document, which is how an ingestion pipeline names it.
    structure = {TYPE_KEY: node.get_type(), _SOURCE_KEY: node.ref_doc_id or node.node_id, DATA_KEY: fields}
    metadata = with_structure(node.metadata, structure, node.node_id)
    return Passage(node.node_id, node.get_content(MetadataMode.NONE), metadata)


def document_passages(document: Document, nodes: Sequence[BaseNode]) -> list[Passage]:
    """Return the passages that store all `nodes` of a document, so that `is_stored_whole` recognises them."""
    passages = [node_to_passage(node) for node in nodes]
    facts = {_SOURCE_KEY: document.id_, _HASH_KEY: document.hash, _COUNT_KEY: len(passages)}
    return [
        replace(passage, metadata={**passage.metadata, STRUCTURE_KEY: {**passage.metadata[STRUCTURE_KEY], **facts}})
        for passage in passages
    ]


def is_stored_whole(index: ColBERTIndex, document: Document) -> bool:
    """Return True if the index has every node of `document` as it is now, and none of an earlier version."""
    of_document = source_filter([document.id_])
    passages = index.get(where=of_document, limit=1)
    if not passages:
        return False
    count = (passages[0].metadata.get(STRUCTURE_KEY) or {}).get(_COUNT_KEY)
    if count is None:
        # Nodes of a pipeline or of `insert_nodes` have the hash in their source alone.
        nodes = [passage_to_node(passage) for passage in index.get(where=of_document)]
        return all((node.source_node or node).hash == document.hash for node in nodes)
    with_hash = {"$and": [of_document, {f"{STRUCTURE_KEY}.{_HASH_KEY}": document.hash}]}
    return bool(index.count(of_document) == index.count(with_hash) == count)


def source_of(passage: Passage | Hit) -> str | None:
    """Return the id of the document that a passage belongs to; ``None`` for a passage without a source."""
    structure = passage.metadata.get(STRUCTURE_KEY)
    source = (structure if isinstance(structure, dict) else passage.metadata).get(_SOURCE_KEY)
    return source if isinstance(source, str) else None


def _with_media(node: BaseNode, fields: dict[str, Any]) -> dict[str, Any]:
    """Return `fields` with the bytes of images and sounds, in base64, which LlamaIndex leaves out of what it writes."""
    completed = dict(fields)
    for name, value in fields.items():
        data = getattr(getattr(node, name, None), "data", None) if name.endswith("_resource") else None
        if isinstance(value, dict) and isinstance(data, bytes):
            completed[name] = {**value, "data": data.decode("ascii")}
    return completed


def passage_to_node(passage: Passage | Hit) -> BaseNode:
    """Return the node that `node_to_passage` stored, or a text node for any other passage."""
    structure = passage.metadata.get(STRUCTURE_KEY)
    # Metadata of the user's own may have the key, where it did not come through a component.
    if not isinstance(structure, dict) or not isinstance(structure.get(DATA_KEY), dict):
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
    """Return the filter for the passages of these source documents.

    Raises
    ------
    InvalidInputError
        If an id is not a string. ``None``, the ``ref_doc_id`` of a node without a source, names no document.
    """
    for ref_doc_id in ref_doc_ids:
        if not isinstance(ref_doc_id, str):
            raise InvalidInputError(f"ref_doc_id is {ref_doc_id!r}; expected the id of a document, a string")
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
