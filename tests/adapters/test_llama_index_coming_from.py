"""LlamaIndex's own rerankers and ours, as docs/how-to/coming_from.md compares them."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
from corpus import QUERIES
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rerank_integrations import CrossEncoderModel, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTRerank, CrossEncoderRerank

QUERY = QUERIES[0]
# Of the constructor of ColbertRerank in llama-index-postprocessor-colbert-rerank 0.6.0.
COLBERT_RERANK = {"top_n", "model", "tokenizer", "device", "keep_retrieval_score"}


@pytest.fixture
def nodes(passages: list[Passage]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=passage.id, text=passage.text, metadata=dict(passage.metadata)), score=0.5)
        for passage in passages[:12]
    ]


def test_sentence_transformer_rerank(nodes: list[NodeWithScore], cross_encoder_dir: Path) -> None:
    arguments: dict[str, Any] = {
        "top_n": 5,
        "model": str(cross_encoder_dir),
        "device": "cpu",
        "keep_retrieval_score": True,
        "trust_remote_code": False,
    }
    assert set(arguments) == set(inspect.signature(SentenceTransformerRerank).parameters)
    # It writes into the nodes that it is given.
    theirs = SentenceTransformerRerank(**arguments).postprocess_nodes(copy.deepcopy(nodes), query_str=QUERY)
    ours = CrossEncoderRerank(
        **arguments,
        metadata_mode=MetadataMode.EMBED,
        cross_encoder_kwargs={"max_length": 512, "dtype": "float32"},
    ).postprocess_nodes(nodes, query_str=QUERY)
    assert [item.node_id for item in ours] == [item.node_id for item in theirs]
    assert [item.score for item in ours] == pytest.approx([item.score for item in theirs], abs=1e-5)
    assert [item.metadata["retrieval_score"] for item in ours] == [0.5] * 5


def test_arguments_of_colbert_rerank(nodes: list[NodeWithScore], colbert_dir: Path) -> None:
    assert set(inspect.signature(ColBERTRerank).parameters) >= COLBERT_RERANK
    folder = str(colbert_dir)
    reranker = ColBERTRerank(top_n=5, model=folder, tokenizer=folder, device="cpu", keep_retrieval_score=True)
    ranked = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert [item.metadata["retrieval_score"] for item in ranked] == [0.5] * 5
    with pytest.raises(InvalidInputError, match="tokenizer is 'another'; expected that of the model"):
        ColBERTRerank(model=folder, tokenizer="another")


def test_arguments_of_the_cross_encoder(cross_encoder_dir: Path, cross_encoder: CrossEncoderModel) -> None:
    folder = str(cross_encoder_dir)
    built = CrossEncoderRerank(
        folder, cross_encoder_kwargs={"max_length": 64, "revision": "main"}, trust_remote_code=True, device="cpu"
    )
    assert built.model.options() == {
        "name_or_path": folder,
        "max_length": 64,
        "revision": "main",
        "trust_remote_code": True,
        "device": "cpu",
    }
    for wrong, message in (
        ({"cross_encoder_kwargs": {"activation_fn": None}}, "has no argument activation_fn; expected name_or_path"),
        ({"cross_encoder_kwargs": {"device": "meta"}, "device": "cpu"}, "device is 'cpu' and 'meta'; expected it once"),
        ({"cross_encoder_kwargs": {"name_or_path": "other"}}, "name_or_path is .* and 'other'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            CrossEncoderRerank(folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"\['trust_remote_code'\] with a model of type CrossEncoderModel"):
        CrossEncoderRerank(cross_encoder, trust_remote_code=True)
