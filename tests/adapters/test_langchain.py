"""Features of LangChain alone: per-call arguments, documents, thresholds, runnables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import QUERIES
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.load import dumps, load
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, Passage
from rerank_integrations.core.structure import with_structure
from rerank_integrations.langchain import (
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
    RerankingRetriever,
)

QUERY = QUERIES[0]


class Lengths:
    """Scores a text by its length: plain to predict."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


def docs(*texts: str, **metadata: Any) -> list[Document]:
    return [Document(text, metadata=dict(metadata)) for text in texts]


def test_a_document_is_the_passage_with_score_and_rank(index: ColBERTIndex) -> None:
    hits = index.search(QUERY, 3)
    expected = [
        Document(
            id=hit.id,
            page_content=hit.text,
            metadata={**hit.metadata, "relevance_score": hit.score, "relevance_rank": hit.rank},
        )
        for hit in hits
    ]
    documents = ColBERTRetriever(index=index, k=3).invoke(QUERY)
    assert documents == expected
    assert [document.model_dump() for document in documents] == [document.model_dump() for document in expected]


async def test_k_per_call(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index, k=5)
    assert [len(retriever.invoke(QUERY, k=k)) for k in (0, 1, 7)] == [0, 1, 7]
    assert len(await retriever.ainvoke(QUERY, k=2)) == 2
    assert len(retriever.bind(k=3).invoke(QUERY)) == 3
    # One call's k does not rule the next.
    assert len(retriever.invoke(QUERY)) == 5
    with pytest.raises(InvalidInputError, match="k is -1"):
        retriever.invoke(QUERY, k=-1)


async def test_filter_per_call(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index, k=48, filter={"tags": "even"})
    even = {document.id for document in retriever.invoke(QUERY)}
    odd = {document.id for document in await retriever.ainvoke(QUERY, filter={"tags": "odd"})}
    assert (len(even), len(odd), even & odd) == (24, 24, set())
    assert {document.id for document in retriever.invoke(QUERY, filter={})} == even | odd
    assert {document.id for document in retriever.invoke(QUERY)} == even


def test_unknown_arguments_are_refused(index: ColBERTIndex) -> None:
    with pytest.raises(TypeError):
        ColBERTRetriever(index=index, top_k=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ColBERTRetriever(index=index).invoke(QUERY, top_k=3)


async def test_batches(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index, k=2)
    one_by_one = [retriever.invoke(query) for query in QUERIES]
    assert retriever.batch(list(QUERIES)) == one_by_one
    assert await retriever.abatch(list(QUERIES)) == one_by_one


def test_in_a_chain_and_configured_at_run_time(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index).configurable_fields(k=ConfigurableField(id="how_many"))
    chain = retriever | RunnableLambda(lambda documents: [document.id for document in documents])
    assert chain.invoke(QUERY, config={"configurable": {"how_many": 3}}) == [hit.id for hit in index.search(QUERY, 3)]


def test_a_changed_document_leaves_the_index_alone(index: ColBERTIndex) -> None:
    retriever = ColBERTRetriever(index=index, k=1)
    first = retriever.invoke(QUERY)[0]
    before = json.dumps(first.metadata)
    first.metadata["tags"].append("changed")
    first.metadata["year"] = None
    assert json.dumps(retriever.invoke(QUERY)[0].metadata) == before


def test_a_key_of_the_users_own_moves_but_stays() -> None:
    reranker = CrossEncoderRerank(model=Lengths())
    document = docs("four", relevance_score="mine", previous_relevance_score="older")[0]
    once = reranker.compress_documents([document], QUERY)[0]
    assert once.metadata == {
        "relevance_score": 4.0,
        "relevance_rank": 1,
        "retrieval_rank": 1,
        "score_scale": "own",
        "previous_relevance_score": "mine",
        "previous_previous_relevance_score": "older",
    }
    assert document.metadata == {"relevance_score": "mine", "previous_relevance_score": "older"}


def test_reranked_documents_keep_id_and_class() -> None:
    class Page(Document):
        number: int = 0

    pages = [Page(page_content="four", id="a", number=7), Page(page_content="longer")]
    ranked = CrossEncoderRerank(model=Lengths()).compress_documents(pages, QUERY)
    assert [(type(page), page.id, getattr(page, "number", None)) for page in ranked] == [
        (Page, None, 0),
        (Page, "a", 7),
    ]


def test_documents_without_an_id_are_all_reranked() -> None:
    assert len(CrossEncoderRerank(model=Lengths()).compress_documents(docs("same", "same"), QUERY)) == 2


def test_documents_of_other_content_are_not_equal_though_the_scored_text_is() -> None:
    pages = [
        Document("first part", id="a", metadata={"title": "t"}),
        Document("second", id="a", metadata={"title": "t"}),
    ]
    assert len(CrossEncoderRerank(model=Lengths(), text_fn="{title}").compress_documents(pages, QUERY)) == 2


@pytest.mark.parametrize(
    ("threshold", "expected"), [(None, ["333", "22", "1"]), (2, ["333", "22"]), (2.5, ["333"]), (4.0, [])]
)
async def test_threshold_is_inclusive(threshold: float | None, expected: list[str]) -> None:
    reranker = CrossEncoderRerank(model=Lengths(), score_threshold=threshold)
    assert [
        document.page_content for document in reranker.compress_documents(docs("1", "333", "22"), QUERY)
    ] == expected
    got = await reranker.acompress_documents(docs("1", "333", "22"), QUERY)
    assert [document.page_content for document in got] == expected


@pytest.mark.parametrize("threshold", [float("nan"), "0.5", True])
def test_threshold_that_is_no_number(threshold: Any, colbert: ColBERTModel) -> None:
    for build in (
        lambda: CrossEncoderRerank(model=Lengths(), score_threshold=threshold),
        lambda: ColBERTRerank(model=colbert, score_threshold=threshold),
    ):
        with pytest.raises(InvalidInputError, match="threshold is"):
            build()


def test_documents_without_an_id_are_encoded(
    index: ColBERTIndex, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    texts = [passage.text for passage in passages[:4]]
    reranker = ColBERTRerank(index=index, top_n=None)
    scores = {
        document.page_content: document.metadata["relevance_score"]
        for document in reranker.compress_documents(docs(*texts), QUERY)
    }
    assert scores == dict(zip(texts, colbert.score(QUERY, texts), strict=True))


async def test_reranking_retriever(index: ColBERTIndex, cross_encoder: CrossEncoderModel) -> None:
    base = ColBERTRetriever(index=index, k=8)
    compressor = CrossEncoderRerank(model=cross_encoder, top_n=4)
    retriever = RerankingRetriever(base_retriever=base, compressor=compressor)
    expected = compressor.compress_documents(base.invoke(QUERY), QUERY)
    assert retriever.invoke(QUERY) == expected
    assert await retriever.ainvoke(QUERY) == expected
    few = compressor.compress_documents(base.invoke(QUERY, k=2, filter={"tags": "odd"}), QUERY)
    assert len(few) == 2
    assert retriever.invoke(QUERY, k=2, filter={"tags": "odd"}) == few
    assert await retriever.ainvoke(QUERY, k=2, filter={"tags": "odd"}) == few


async def test_reranking_retriever_over_a_runnable_and_a_foreign_compressor(index: ColBERTIndex) -> None:
    class Reverse(BaseDocumentCompressor):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
            return list(documents)[::-1]

    base = ColBERTRetriever(index=index).bind(k=3)
    retriever = RerankingRetriever(base_retriever=base, compressor=Reverse())
    assert retriever.invoke(QUERY) == base.invoke(QUERY)[::-1]
    assert await retriever.ainvoke(QUERY) == base.invoke(QUERY)[::-1]


async def test_reranking_retriever_without_candidates_does_not_rank(index: ColBERTIndex) -> None:
    retriever = RerankingRetriever(
        base_retriever=ColBERTRetriever(index=index), compressor=CrossEncoderRerank(model=Lengths())
    )
    assert retriever.invoke(" ") == []
    assert await retriever.ainvoke(" ") == []


def test_reranking_retriever_comes_back_from_json(index: ColBERTIndex, cross_encoder: CrossEncoderModel) -> None:
    retriever = RerankingRetriever(
        base_retriever=ColBERTRetriever(index=index, k=5, filter={"tags": "odd"}, tags=["mine"]),
        compressor=CrossEncoderRerank(model=cross_encoder, top_n=2, score_threshold=0.0),
    )
    allowed: list[Any] = [RerankingRetriever, ColBERTRetriever, CrossEncoderRerank]
    back = load(json.loads(dumps(retriever)), allowed_objects=allowed, valid_namespaces=["rerank_integrations"])
    assert isinstance(back, BaseRetriever)
    assert dumps(back) == dumps(retriever)
    assert back.invoke(QUERY) == retriever.invoke(QUERY)


def test_a_retriever_whose_model_is_a_relative_path_loads_in_another_working_directory(
    colbert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colbert_dir.parent)
    with ColBERTIndex.create(tmp_path / "index", ColBERTModel(colbert_dir.name)) as index:
        index.upsert(["a text", "another one"])
        retriever = ColBERTRetriever(index=index)
        expected, written = retriever.invoke(QUERY), dumps(retriever)
    monkeypatch.chdir(tmp_path)
    back = load(json.loads(written), allowed_objects=[ColBERTRetriever], valid_namespaces=["rerank_integrations"])
    assert back.invoke(QUERY) == expected


def test_what_a_node_of_another_framework_stores_is_not_shown(colbert: ColBERTModel) -> None:
    metadata = with_structure({"page": 3}, {"relationships": {}}, "a")
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([Passage("a", "Mars is red.", metadata)])
        (document,) = ColBERTRetriever(index=index).invoke("Mars")
        (stored,) = ColBERTVectorStore(index).get_by_ids(["a"])
    assert set(document.metadata) == {"page", "relevance_score", "relevance_rank"}
    assert stored.metadata == {"page": 3}
