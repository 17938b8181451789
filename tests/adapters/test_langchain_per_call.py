"""Arguments of one call in LangChain, arguments that are refused, and subclasses that define one method alone."""

from __future__ import annotations

from typing import Any

import pytest
from corpus import QUERIES
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.retrievers import BaseRetriever

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Ranked
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
    RerankingRetriever,
)

QUERY = QUERIES[0]


class Lengths:
    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


class Reverse(BaseDocumentCompressor):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return list(documents)[::-1]


@pytest.fixture
def base(index: ColBERTIndex) -> ColBERTRetriever:
    return ColBERTRetriever(index=index, k=5)


async def test_top_n_per_call(base: ColBERTRetriever, colbert: ColBERTModel) -> None:
    documents = base.invoke(QUERY)
    lengths = CrossEncoderRerank(model=Lengths(), top_n=4)
    for reranker in (ColBERTRerank(model=colbert, top_n=4), CascadeRerank(stages=[lengths], top_n=4), lengths):
        best = reranker.compress_documents(documents, QUERY)
        assert [len(best), reranker.top_n] == [4, 4]
        assert reranker.compress_documents(documents, QUERY, top_n=2) == best[:2]
        assert await reranker.acompress_documents(documents, QUERY, top_n=2) == best[:2]
        assert reranker.compress_many([documents] * 2, [QUERY] * 2, top_n=1) == [best[:1]] * 2
        assert await reranker.acompress_documents(documents, QUERY, top_n=0) == []
        with pytest.raises(InvalidInputError, match="top_n is -1"):
            reranker.compress_documents(documents, QUERY, top_n=-1)
        assert len(reranker.compress_documents(documents, QUERY)) == 4
    assert len(lengths.compress_documents(documents, QUERY, top_n=None)) == 5


async def test_top_n_per_call_of_a_reranking_retriever(base: ColBERTRetriever) -> None:
    retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderRerank(model=Lengths(), top_n=4))
    best = retriever.invoke(QUERY)
    assert len(best) == 4
    assert retriever.invoke(QUERY, top_n=2) == best[:2]
    assert await retriever.ainvoke(QUERY, top_n=2) == best[:2]
    assert len(retriever.invoke(QUERY, top_n=None)) == 5
    assert len(retriever.invoke(QUERY, top_n=None, k=7)) == 7
    assert len(retriever.bind(top_n=1).invoke(QUERY)) == 1
    queries = list(QUERIES[:3])
    expected = [documents[:2] for documents in retriever.batch(queries)]
    assert retriever.batch(queries, top_n=2) == expected
    assert await retriever.abatch(queries, top_n=2) == expected
    assert retriever.batch(queries, top_n=2, return_exceptions=True) == expected
    for wrong in (-1, "two", 1.5):
        with pytest.raises(InvalidInputError, match="top_n is"):
            retriever.invoke(QUERY, top_n=wrong)
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke(QUERY, top_k=2)


async def test_top_n_with_a_compressor_of_another_package_is_refused(base: ColBERTRetriever) -> None:
    retriever = RerankingRetriever(base_retriever=base, compressor=Reverse())
    with pytest.raises(InvalidInputError, match=r"top_n is 2 .* Reverse"):
        retriever.invoke(QUERY, top_n=2)
    with pytest.raises(InvalidInputError, match="top_n is 2"):
        await retriever.ainvoke(QUERY, top_n=2)
    with pytest.raises(InvalidInputError, match="top_n is 2"):
        retriever.batch([QUERY], top_n=2)


@pytest.mark.parametrize("name", ["top_n", "k", "typo"])
def test_unknown_arguments_of_a_reranking_retriever(base: ColBERTRetriever, name: str) -> None:
    arguments: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=name):
        RerankingRetriever(base_retriever=base, compressor=Reverse(), **arguments)
    named = RerankingRetriever(base_retriever=base, compressor=Reverse(), name="mine", tags=["t"], metadata={"m": 1})
    assert (named.name, named.tags, named.metadata) == ("mine", ["t"], {"m": 1})


async def test_score_threshold(index: ColBERTIndex) -> None:
    hits = index.search(QUERY, 5)
    third = hits[2].score
    expected = [hit.id for hit in hits if hit.score >= third]
    retriever = ColBERTRetriever(index=index, k=5, score_threshold=third)
    plain = ColBERTRetriever(index=index, k=5)
    for found in (
        retriever.invoke(QUERY),
        await retriever.ainvoke(QUERY),
        plain.invoke(QUERY, score_threshold=third),
        await plain.ainvoke(QUERY, score_threshold=third),
    ):
        assert [document.id for document in found] == expected
    assert len(retriever.invoke(QUERY, score_threshold=float("-inf"))) == 5
    assert retriever.invoke(QUERY, score_threshold=1000) == []
    assert [document.metadata["relevance_rank"] for document in retriever.invoke(QUERY)] == [1, 2, 3][: len(expected)]
    for wrong in ("high", True, float("nan")):
        with pytest.raises(InvalidInputError, match="score_threshold is"):
            ColBERTRetriever(index=index, score_threshold=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="score_threshold is"):
            plain.invoke(QUERY, score_threshold=wrong)


def test_the_threshold_of_the_store_s_retriever_is_the_mean_over_the_query_s_tokens(index: ColBERTIndex) -> None:
    tokens = len(index.encode_query(QUERY))
    third = index.search(QUERY, 5)[2].score
    by_sum = ColBERTRetriever(index=index, k=5, score_threshold=third).invoke(QUERY)
    by_mean = ColBERTVectorStore(index).as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 5, "score_threshold": third / tokens - 1e-9}
    )
    assert [document.id for document in by_mean.invoke(QUERY)] == [document.id for document in by_sum]


def test_a_bad_option_stores_nothing(colbert: ColBERTModel, tmp_path: Any) -> None:
    for options in ({"filter": {"year": {"$near": 3}}}, {"k": -1}, {"filter": "year"}):
        with pytest.raises(InvalidInputError):
            ColBERTRetriever.from_texts(["a text"], colbert, path=tmp_path / "index", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            ColBERTRetriever.from_documents([Document("a text")], colbert, path=tmp_path / "index", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "index").exists()


async def test_subclasses_that_define_the_synchronous_method_alone(base: ColBERTRetriever) -> None:
    class Shorter(CrossEncoderRerank):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:  # type: ignore[override]
            return super().compress_documents(documents, query, callbacks)[:1]

    class Backwards(CrossEncoderRerank):
        def _rank_many(self, queries: list[str], documents: list[list[Document]]) -> list[list[Ranked]]:
            return [ranked[::-1] for ranked in super()._rank_many(queries, documents)]

    class Many(CrossEncoderRerank):
        def compress_many(self, *args: Any, **kwargs: Any) -> list[list[Document]]:
            return [documents[::-1] for documents in super().compress_many(*args, **kwargs)]

    documents = base.invoke(QUERY)
    for kind, size in ((Shorter, 1), (Backwards, 4), (Many, 4)):
        reranker = kind(model=Lengths(), top_n=4)
        expected = reranker.compress_documents(documents, QUERY)
        assert len(expected) == size
        assert expected != CrossEncoderRerank(model=Lengths(), top_n=4).compress_documents(documents, QUERY)
        assert await reranker.acompress_documents(documents, QUERY) == expected
        retriever = RerankingRetriever(base_retriever=base, compressor=reranker)
        assert await retriever.ainvoke(QUERY) == retriever.invoke(QUERY) == retriever.batch([QUERY])[0] == expected
        assert len(await retriever.ainvoke(QUERY, top_n=1)) == 1


async def test_retrievers_that_define_the_synchronous_method_alone(index: ColBERTIndex) -> None:
    class Backwards(ColBERTRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
            return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)[::-1]

    class Less(RerankingRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:  # type: ignore[override]
            return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)[:1]

    base = Backwards(index=index, k=4)
    expected = ColBERTRetriever(index=index, k=4).invoke(QUERY)[::-1]
    assert base.invoke(QUERY) == await base.ainvoke(QUERY) == base.batch([QUERY])[0] == expected
    assert len(await base.ainvoke(QUERY, k=2)) == 2
    retriever = Less(base_retriever=base, compressor=CrossEncoderRerank(model=Lengths()))
    assert len(retriever.invoke(QUERY)) == 1
    assert await retriever.ainvoke(QUERY) == retriever.batch([QUERY])[0] == retriever.invoke(QUERY)


def test_a_stage_with_a_ranking_of_its_own_is_refused() -> None:
    class Censored(CrossEncoderRerank):
        def compress_documents(
            self, documents: Any, query: str, callbacks: Any = None, **options: Any
        ) -> list[Document]:
            ranked = super().compress_documents(documents, query, callbacks, **options)
            return [document for document in ranked if "secret" not in document.page_content]

    with pytest.raises(InvalidInputError, match="Censored, which overrides compress_documents"):
        CascadeRerank(stages=[Censored(model=Lengths())])


class TakesNoArguments(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document("a text")]


async def test_arguments_that_the_base_retriever_would_drop_are_refused() -> None:
    retriever = RerankingRetriever(base_retriever=TakesNoArguments(), compressor=CrossEncoderRerank(model=Lengths()))
    message = "k in the call of a RerankingRetriever, whose base retriever TakesNoArguments takes no arguments"
    with pytest.raises(InvalidInputError, match=message):
        retriever.invoke("query", k=1)
    with pytest.raises(InvalidInputError, match=message):
        await retriever.ainvoke("query", k=1)
    with pytest.raises(InvalidInputError, match=message):
        retriever.batch(["query"], k=1)
    assert len(retriever.invoke("query", top_n=1)) == 1
