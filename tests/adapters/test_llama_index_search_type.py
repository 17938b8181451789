"""LlamaIndex's retrievers and store by BM25 and by both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTRetriever, ColBERTVectorStore

TEXTS = ["red foxes run", "a green frog", "the blue whale", "red frogs jump over red stones", "whales and foxes"]


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage(f"p{n}", text, {"n": n}) for n, text in enumerate(TEXTS)])
        yield index


@pytest.mark.parametrize(
    "options",
    [{"search_type": "bm25"}, {"search_type": "hybrid"}, {"search_type": "hybrid", "bm25_weight": 0.8}],
    ids=["bm25", "hybrid", "weighted"],
)
async def test_nodes_are_the_hits(index: ColBERTIndex, options: dict[str, Any]) -> None:
    expected = [(hit.id, hit.score) for hit in index.search("red fox", 3, **options)]
    retriever = ColBERTRetriever(index, 3, **options)
    for nodes in (retriever.retrieve("red fox"), await retriever.aretrieve("red fox")):
        assert [(node.node.node_id, node.score) for node in nodes] == expected
        assert [sorted(node.node.metadata) for node in nodes] == [["n"]] * len(nodes)


def test_texts_to_embed_are_for_the_model_alone(index: ColBERTIndex) -> None:
    query = QueryBundle("red fox", custom_embedding_strs=["blue whale"])
    by_words = ColBERTRetriever(index, search_type="bm25").retrieve(query)
    assert [node.node.node_id for node in by_words] == [hit.id for hit in index.search("red fox", search_type="bm25")]
    by_both = ColBERTRetriever(index, search_type="hybrid").retrieve(query)
    expected = index.search_encoded(index.encode_query("blue whale"), text="red fox")
    assert [(node.node.node_id, node.score) for node in by_both] == [(hit.id, hit.score) for hit in expected]


@pytest.mark.parametrize(
    ("mode", "alpha", "options"),
    [
        (VectorStoreQueryMode.TEXT_SEARCH, None, {"search_type": "bm25"}),
        (VectorStoreQueryMode.HYBRID, None, {"search_type": "hybrid"}),
        (VectorStoreQueryMode.HYBRID, 0.25, {"search_type": "hybrid", "bm25_weight": 0.75}),
        (VectorStoreQueryMode.HYBRID, 1, {"search_type": "hybrid", "bm25_weight": 0.0}),
    ],
    ids=["text", "hybrid", "alpha", "alpha 1"],
)
def test_modes_of_the_store(index: ColBERTIndex, mode: Any, alpha: float | None, options: dict[str, Any]) -> None:
    query = VectorStoreQuery(query_str="red fox", similarity_top_k=3, mode=mode, alpha=alpha)
    result = ColBERTVectorStore(index).query(query)
    expected = index.search("red fox", 3, **options)
    assert (result.ids, result.similarities) == ([hit.id for hit in expected], [hit.score for hit in expected])


def test_through_llama_indexs_own_retriever(index: ColBERTIndex) -> None:
    retriever = (
        ColBERTVectorStore(index)
        .as_index()
        .as_retriever(similarity_top_k=2, vector_store_query_mode="hybrid", alpha=0.5)
    )
    expected = index.search("red fox", 2, search_type="hybrid", bm25_weight=0.5)
    assert [(node.node.node_id, node.score) for node in retriever.retrieve("red fox")] == [
        (hit.id, hit.score) for hit in expected
    ]


@pytest.mark.parametrize(
    ("mode", "alpha"),
    [(VectorStoreQueryMode.DEFAULT, 0.5), (VectorStoreQueryMode.TEXT_SEARCH, 0.5), (VectorStoreQueryMode.HYBRID, 1.5)],
    ids=["default", "text", "out of range"],
)
def test_an_alpha_that_means_nothing_is_refused(index: ColBERTIndex, mode: Any, alpha: float) -> None:
    query = VectorStoreQuery(query_str="red fox", similarity_top_k=3, mode=mode, alpha=alpha)
    with pytest.raises(InvalidInputError, match=f"alpha of the query is {alpha}"):
        ColBERTVectorStore(index).query(query)


@pytest.mark.parametrize("options", [{"search_type": "svm"}, {"bm25_weight": 0.5}], ids=["kind", "weight"])
def test_bad_options_are_refused(index: ColBERTIndex, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"search_type|bm25_weight"):
        ColBERTRetriever(index, **options)
