"""Nodes that an index stores come back whole, and what they hide from a language model stays hidden."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Passage
from rerank_integrations.core.structure import STRUCTURE_KEY
from rerank_integrations.llama_index import ColBERTRerank, ColBERTRetriever, node_to_passage


class Page(TextNode):
    """A user's own class."""

    number: int = 0


NODES: dict[str, Callable[..., BaseNode]] = {
    "text": lambda **common: TextNode(text="Mars is red.", start_char_idx=3, end_char_idx=15, **common),
    "document": lambda **common: Document(text="Mars is red.", **common),
    "index": lambda **common: IndexNode(text="Mars is red.", index_id="planets", **common),
    "image": lambda **common: ImageNode(text="Mars is red.", image="bWFycw==", image_path="mars.png", **common),
    "image document": lambda **common: ImageDocument(
        text="Mars is red.", image=b"bWFycw==", image_mimetype="image/png", **common
    ),
    "several media": lambda **common: Node(text_resource=MediaResource(text="Mars is red."), **common),
}


@pytest.fixture
def empty(colbert: ColBERTModel) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, colbert) as created:
        yield created


def whole(kind: str) -> BaseNode:
    return NODES[kind](
        id_="chunk",
        metadata={"page": 3, "author": "Ada", "acl": "SECRET", "tags": ["a", "b"]},
        excluded_embed_metadata_keys=["author"],
        excluded_llm_metadata_keys=["acl"],
        metadata_template="{key} = {value}",
        metadata_separator=" | ",
        text_template="[{metadata_str}] {content}",
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book", metadata={"page": 1}, hash="abc"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="a"), RelatedNodeInfo(node_id="b")],
        },
    )


@pytest.mark.parametrize("kind", list(NODES))
def test_a_node_comes_back_whole(empty: ColBERTIndex, kind: str) -> None:
    node = whole(kind)
    before = node.to_dict()
    empty.upsert([node_to_passage(node)])
    (found,) = ColBERTRetriever(empty).retrieve("Mars")
    assert type(found.node) is type(node)
    assert found.node.to_dict() == before == node.to_dict()
    assert found.node.ref_doc_id == "book"
    assert found.node.relationships == node.relationships
    for mode in MetadataMode:
        assert found.node.get_content(mode) == node.get_content(mode)
    assert "SECRET" not in found.node.get_content(MetadataMode.LLM)


def test_an_index_node_leads_to_its_object(empty: ColBERTIndex) -> None:
    summary = IndexNode(id_="summary", text="Mars", index_id="all", obj=TextNode(id_="all", text="Mars is red."))
    empty.upsert([node_to_passage(summary)])
    (found,) = ColBERTRetriever(empty).retrieve("Mars")
    assert (found.node_id, found.text) == ("all", "Mars is red.")


def test_after_a_reranking_too(empty: ColBERTIndex) -> None:
    node = whole("text")
    empty.upsert([node_to_passage(node)])
    found = ColBERTRetriever(empty).retrieve("Mars")
    (best,) = ColBERTRerank(index=empty).postprocess_nodes(found, query_str="Mars")
    assert best.node.metadata["vectors_from"] == "stored"
    assert best.node.relationships == node.relationships
    for mode in (MetadataMode.LLM, MetadataMode.EMBED, MetadataMode.NONE):
        assert best.node.get_content(mode) == node.get_content(mode)


def test_without_text_or_source(empty: ColBERTIndex) -> None:
    nodes = [TextNode(id_="empty"), Document(id_="image", image_resource=MediaResource(url="https://mars.org/a.png"))]
    before = [node.to_dict() for node in nodes]
    empty.upsert(node_to_passage(node) for node in nodes)
    found = {item.node_id: item.node.to_dict() for item in ColBERTRetriever(empty).retrieve("Mars")}
    assert [found["empty"], found["image"]] == before


def test_metadata_is_filtered_and_a_users_ref_doc_id_is_metadata(empty: ColBERTIndex) -> None:
    empty.upsert(
        node_to_passage(TextNode(id_=str(page), text="Mars", metadata={"page": page, "ref_doc_id": "mine"}))
        for page in range(3)
    )
    filters = MetadataFilters(filters=[MetadataFilter(key="page", value=2)])
    (found,) = ColBERTRetriever(empty, filters=filters).retrieve("Mars")
    assert (found.node_id, found.node.ref_doc_id) == ("2", None)
    assert found.node.get_content(MetadataMode.LLM) == "page: 2\nref_doc_id: mine\n\nMars"


def test_a_class_of_the_users_own_is_what_it_derives_from(empty: ColBERTIndex) -> None:
    empty.upsert([node_to_passage(Page(id_="a", text="Mars", number=7, metadata={"page": 3}))])
    (found,) = ColBERTRetriever(empty).retrieve("Mars")
    assert type(found.node) is TextNode
    assert (found.text, found.node.metadata) == ("Mars", {"page": 3})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            TextNode(id_="a", metadata={STRUCTURE_KEY: 1}),
            "'a' has the key '_rerank_integrations_node', which is",
        ),
        (IndexNode(id_="a", index_id="b", obj=object()), "node 'a' cannot be stored: .*serializ"),
        ("Mars is red.", "a node is of type str; expected a node of LlamaIndex"),
    ],
)
def test_what_cannot_be_stored_is_refused(node: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        node_to_passage(node)


def test_metadata_that_the_index_does_not_store_is_refused_by_name(empty: ColBERTIndex) -> None:
    from datetime import date

    with pytest.raises(InvalidInputError, match=r"metadata of passage 'a' has .*at 'day'.*isoformat"):
        empty.upsert([node_to_passage(TextNode(id_="a", text="Mars", metadata={"day": date(2024, 1, 1)}))])


def test_bytes_of_media_come_back() -> None:
    data = base64.b64encode(b"an image")
    node = Node(
        id_="n",
        text_resource=MediaResource(text="a caption"),
        image_resource=MediaResource(data=data, mimetype="image/png"),
    )
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([node_to_passage(node)])
        (found,) = ColBERTRetriever(index).retrieve("caption")
    assert isinstance(found.node, Node)
    assert found.node.image_resource == node.image_resource
    assert found.node.hash == node.hash


@pytest.mark.parametrize("value", [{"mine": 1}, "mine", None, 7])
def test_a_reserved_key_of_the_users_own_is_no_node(value: object) -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage("p", "a text", {"_rerank_integrations_node": value})])
        (found,) = ColBERTRetriever(index).retrieve("text")
    assert found.node.metadata == {"_rerank_integrations_node": value}


@pytest.mark.parametrize("key", ["_rerank_integrations_node", "_rerank_integrations_node.ref_doc_id"])
def test_a_node_with_a_reserved_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        node_to_passage(TextNode(text="a text", metadata={key: "other"}))
