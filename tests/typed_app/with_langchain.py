"""An application with LangChain: every component, checked by types."""

from __future__ import annotations

import asyncio
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.structured_query import Comparator, Comparison
from langchain_core.tools import StructuredTool
from typing_extensions import assert_type

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Explanation, TruncationWarning
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTFilterTranslator,
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
    RankedDocument,
    RerankingRetriever,
    create_retriever_tool,
)

TEXTS = {
    "zipfile": "ZipFile.read returns one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of comma-separated values.",
    "heapq": "heapq.nlargest returns the n largest elements of a data set.",
}
QUESTION = "how do I read one file of an archive?"


def with_title(document: Document) -> str:
    return f"{document.id}: {document.page_content}"


def rerank(documents: list[Document], index: ColBERTIndex) -> list[Document]:
    colbert = ColBERTRerank(
        index=index, top_n=3, score_threshold=0.0, scale="sum", window=128, stride=64, text_fn=with_title
    )
    cross_encoder = CrossEncoderRerank(model=CrossEncoderModel("starter"), top_n=2, strict=False)
    assert_type(colbert.compress_documents(documents, QUESTION), list[Document])
    assert_type(colbert.score(QUESTION, ["one text"]), list[float])
    assert_type(colbert.explain(QUESTION, documents[0]), Explanation)
    cascade = CascadeRerank(stages=[colbert, cross_encoder], top_n=1, time_budget=30.0)
    return cascade.compress_documents(documents, QUESTION)


async def retrieve(retriever: BaseRetriever) -> list[Document]:
    return await retriever.ainvoke(QUESTION)


def stored(folder: Path, model: ColBERTModel) -> list[Document]:
    documents = [Document(page_content=text, metadata={"name": name}) for name, text in TEXTS.items()]
    store = ColBERTVectorStore.from_documents(documents, model, path=folder / "store")
    assert_type(store, ColBERTVectorStore)
    assert_type(store.add_texts(["one more"], [{"name": "other"}]), list[str])
    assert_type(store.similarity_search_with_relevance_scores(QUESTION, k=1), list[tuple[Document, float]])
    assert_type(store.max_marginal_relevance_search(QUESTION, k=2, fetch_k=4), list[Document])
    store.delete(filter={"name": "other"})
    where = ColBERTFilterTranslator().visit_comparison(Comparison(Comparator.EQ, "name", "csv"))
    assert_type(store.similarity_search(QUESTION, k=1, filter=where), list[Document])
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2})
    try:
        return retriever.invoke(QUESTION)
    finally:
        store.index.close()


def main(folder: Path) -> None:
    assert issubclass(TruncationWarning, UserWarning)
    with ColBERTIndex.create(folder / "index", ColBERTModel("starter")) as index:
        index.upsert({"id": name, "text": text, "metadata": {"length": len(text)}} for name, text in TEXTS.items())
        retriever = ColBERTRetriever(index=index, k=3, filter={"length": {"$gt": 10}})
        documents = retriever.invoke(QUESTION)
        assert_type(documents, list[Document])
        assert all(isinstance(document, RankedDocument) for document in documents)
        tool = create_retriever_tool(retriever, "search_library", "Search the standard library.")
        assert_type(tool, StructuredTool)
        assert len(rerank(documents, index)) == 1
        assert len(stored(folder, ColBERTModel("starter"))) == 2
        by_name = ColBERTRerank(model="starter", device="cpu", top_n=None)
        reranking = RerankingRetriever(base_retriever=retriever, compressor=by_name)
        assert len(asyncio.run(retrieve(reranking))) == 3
        assert_type(reranking.batch([QUESTION]), list[list[Document]])
