"""LangChain's retriever by BM25 and by both: the core's hits, with their notes in the metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError, Passage
from rerank_integrations.langchain import ColBERTRetriever, ColBERTVectorStore

TEXTS = ["red foxes run", "a green frog", "the blue whale", "red frogs jump over red stones", "whales and foxes"]


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage(f"p{n}", text, {"n": n}) for n, text in enumerate(TEXTS)])
        yield index


@pytest.mark.parametrize("kind", ["bm25", "hybrid"])
def test_documents_are_the_hits(index: ColBERTIndex, kind: Any) -> None:
    hits = index.search("red fox", 3, search_type=kind, where={"n": {"$ne": 3}})
    retriever = ColBERTRetriever(index=index, k=3, search_type=kind, filter={"n": {"$ne": 3}})
    for documents in (retriever.invoke("red fox"), asyncio.run(retriever.ainvoke("red fox"))):
        assert [document.id for document in documents] == [hit.id for hit in hits]
        for document, hit in zip(documents, hits, strict=True):
            expected = {**hit.metadata, "relevance_score": hit.score, "relevance_rank": hit.rank, **hit.note}
            assert document.metadata == expected
            assert document.metadata["search_type"] == kind


def test_of_one_call(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index, search_type="hybrid", bm25_weight=0.9)
    (first, *_) = retriever.invoke("red fox")
    assert first.metadata["bm25_weight"] == 0.9
    by_words = retriever.invoke("whale", search_type="bm25")
    assert [document.id for document in by_words] == [hit.id for hit in index.search("whale", search_type="bm25")]
    assert "search_type" not in retriever.invoke("whale", search_type="colbert")[0].metadata


def test_equal_passages_are_equal_whatever_the_search(index: ColBERTIndex) -> None:
    by = {kind: ColBERTRetriever(index=index, search_type=kind) for kind in ("colbert", "bm25", "hybrid")}
    found = {kind: {d.id: d for d in retriever.invoke("red fox")} for kind, retriever in by.items()}
    assert found["colbert"]["p0"] == found["bm25"]["p0"] == found["hybrid"]["p0"]


def test_a_threshold_is_of_the_same_score(index: ColBERTIndex) -> None:
    hits = index.search("red fox", search_type="bm25")
    retriever = ColBERTRetriever(index=index, search_type="bm25", score_threshold=hits[1].score)
    assert [document.id for document in retriever.invoke("red fox")] == [hit.id for hit in hits[:2]]


@pytest.mark.parametrize(
    "options",
    [{"search_type": "mmr"}, {"search_type": "hybrid", "bm25_weight": 2}, {"bm25_weight": 0.5}],
    ids=["kind", "weight", "weight alone"],
)
def test_bad_options_are_refused(index: ColBERTIndex, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"search_type|bm25_weight"):
        ColBERTRetriever(index=index, **options)


def test_a_store_has_langchains_own_search_types(index: ColBERTIndex) -> None:
    with pytest.raises(ValueError, match="search_type"):
        ColBERTVectorStore(index).as_retriever(search_type="hybrid")
