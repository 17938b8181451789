"""Nodes of every kind come back as themselves, and what a reranking notes reaches no text that a model reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import QUERIES
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from rerank_integrations import ColBERTModel, CrossEncoderModel, InvalidInputError
from rerank_integrations.llama_index import CascadeRerank, ColBERTRerank, CrossEncoderRerank

QUERY = QUERIES[0]
MODES = (MetadataMode.EMBED, MetadataMode.LLM, MetadataMode.NONE)


class Page(TextNode):
    """A user's own."""

    number: int = 0


class Spy:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.texts = texts
        return [float(len(text)) for text in texts]


NODES = {
    "text": lambda **common: TextNode(text="Mars is red.", **common),
    "own": lambda **common: Page(text="Mars is red.", number=7, **common),
    "index": lambda **common: IndexNode(text="Mars is red.", index_id="planets", obj=TextNode(text="all"), **common),
    "image": lambda **common: ImageNode(text="Mars is red.", image_path="mars.png", **common),
    "document": lambda **common: Document(text="Mars is red.", **common),
    "image document": lambda **common: ImageDocument(
        text="Mars is red.", image=b"bWFycw==", image_mimetype="image/png", **common
    ),
}


@pytest.fixture
def cascade(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> CascadeRerank:
    stages: list[Any] = [ColBERTRerank(colbert), CrossEncoderRerank(cross_encoder, window=8)]
    return CascadeRerank(stages, keep_retrieval_score=True)


@pytest.mark.parametrize("kind", list(NODES))
def test_nodes_of_every_kind(cascade: CascadeRerank, kind: str) -> None:
    node = NODES[kind](
        metadata={"page": 3, "author": "Ada", "tags": ["a"]},
        excluded_embed_metadata_keys=["author"],
        excluded_llm_metadata_keys=["page"],
        embedding=[0.5, 0.25],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
    )
    original = NodeWithScore(node=node, score=0.25)
    before = original.to_json()
    current = original
    for _ in range(3):
        (current,) = cascade.postprocess_nodes([current], query_str=QUERY)
        result = current.node
        assert type(result) is type(node)
        assert (result.node_id, result.embedding) == (node.node_id, [0.5, 0.25])
        assert json.loads(json.dumps(result.metadata)) == result.metadata
        assert result.relationships == node.relationships
        for mode in MODES:
            assert result.get_content(mode) == node.get_content(mode)
        for name in ("number", "index_id", "obj", "image_path", "image_resource"):
            assert getattr(result, name, None) == getattr(node, name, None)
        assert current.node.metadata["rerank_stage"] == "CrossEncoderRerank"
    result.metadata["tags"].append("changed")
    result.metadata["previous_rerank_scores"].clear()
    result.excluded_llm_metadata_keys.clear()
    result.relationships.clear()
    assert original.to_json() == before


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_no_mode_scores_what_earlier_rerankings_noted(cascade: CascadeRerank, mode: MetadataMode) -> None:
    node = TextNode(text="Mars is red.", metadata={"page": 3, "author": "Ada"}, excluded_llm_metadata_keys=["page"])
    current = [NodeWithScore(node=node, score=0.25)]
    spy = Spy()
    reading = CrossEncoderRerank(spy, metadata_mode=mode, keep_retrieval_score=True)
    for _ in range(3):
        current = reading.postprocess_nodes(cascade.postprocess_nodes(current, query_str=QUERY), query_str=QUERY)
        assert spy.texts == [node.get_content(mode)]


def test_a_mode_by_its_name(cascade: CascadeRerank) -> None:
    node = TextNode(text="Mars is red.", metadata={"page": 3}, excluded_embed_metadata_keys=["page"])
    once = cascade.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    spy = Spy()
    for reranker in (CrossEncoderRerank(spy, metadata_mode="all"), CrossEncoderRerank(spy)):  # type: ignore[arg-type]
        reranker.metadata_mode = "all"  # type: ignore[assignment]
        reranker.postprocess_nodes(once, query_str=QUERY)
        assert spy.texts == ["page: 3\n\nMars is red."]
    reranker.metadata_mode = "some"  # type: ignore[assignment]
    with pytest.raises(InvalidInputError, match="metadata_mode is 'some'; expected one of 'all', 'embed'"):
        reranker.postprocess_nodes(once, query_str=QUERY)
    with pytest.raises(InvalidInputError, match="metadata_mode is 'some'"):
        CrossEncoderRerank(spy, metadata_mode="some")  # type: ignore[arg-type]


def test_a_key_of_the_users_own_stays_in_the_text() -> None:
    node = TextNode(text="Mars is red.", metadata={"truncated": "by hand", "retrieval_score": "mine"})
    original = NodeWithScore(node=node, score=0.25)
    (result,) = CrossEncoderRerank(Spy()).postprocess_nodes([original], query_str=QUERY)
    for mode in MODES:
        assert result.node.get_content(mode) == node.get_content(mode)
    assert {key: result.node.metadata[key] for key in node.metadata} == node.metadata
    (result,) = CrossEncoderRerank(Spy(), keep_retrieval_score=True).postprocess_nodes([original], query_str=QUERY)
    assert result.node.metadata["previous_retrieval_score"] == "mine"
    assert result.node.metadata["retrieval_score"] == 0.25
    # A score is never shown; the user's value went with its name.
    assert result.node.get_content(MetadataMode.LLM) == "truncated: by hand\n\nMars is red."


def test_a_score_of_numpys() -> None:
    import numpy as np

    original = NodeWithScore(node=TextNode(text="Mars is red."))
    # As LlamaIndex's own SentenceTransformerRerank leaves it.
    original.score = np.float32(0.25)  # type: ignore[assignment]
    (result,) = CrossEncoderRerank(Spy(), keep_retrieval_score=True).postprocess_nodes([original], query_str=QUERY)
    assert type(result.node.metadata["retrieval_score"]) is float
