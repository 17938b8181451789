"""LlamaIndex's reranker explains the text that it scores."""

from __future__ import annotations

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rerank_integrations import ColBERTModel
from rerank_integrations.llama_index import ColBERTRerank


@pytest.mark.parametrize("mode", [MetadataMode.NONE, MetadataMode.EMBED])
def test_the_scored_text_is_explained(colbert: ColBERTModel, mode: MetadataMode) -> None:
    node = TextNode(text="The directory of a zip file is stored at its end.", metadata={"topic": "archives"})
    explanation = ColBERTRerank(model=colbert, metadata_mode=mode).explain("zip", node)
    assert explanation == colbert.explain("zip", node.get_content(metadata_mode=mode))
    assert ("topic: archives" in explanation.text) == (mode is MetadataMode.EMBED)
    assert explanation == ColBERTRerank(model=colbert, metadata_mode=mode).explain(
        "zip", NodeWithScore(node=node, score=1.0)
    )
