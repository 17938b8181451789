"""The behaviour suite's view of the LangChain components."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.documents import Document
from langchain_core.load import dumps, load
from ranked_rows import Noted, Row

from rerank_integrations import Passage
from rerank_integrations.langchain import CascadeRerank, ColBERTRerank, ColBERTRetriever, CrossEncoderRerank

CLASSES = [CascadeRerank, ColBERTRerank, ColBERTRetriever, CrossEncoderRerank]


class Harness:
    extra = "langchain"
    colbert_rerank = ColBERTRerank
    cross_encoder_rerank = CrossEncoderRerank
    cascade_rerank = CascadeRerank
    # The text that LlamaIndex's embedding models see of a node.
    text_with_metadata: dict[str, Any] = {"text_fn": "year: {year}\ntags: {tags}\n\n{page_content}"}  # noqa: RUF012

    def retriever(self, index: Any, k: int = 10, since: int | None = None) -> Any:
        return ColBERTRetriever(index=index, k=k, filter=None if since is None else {"year": {"$gte": since}})

    def retriever_with_bad_filter(self, index: Any) -> Any:
        return ColBERTRetriever(index=index, filter={"year": {"$near": 2010}})

    def retrieve(self, retriever: Any, query: str) -> list[Row]:
        return _rows(retriever.invoke(query))

    async def aretrieve(self, retriever: Any, query: str) -> list[Row]:
        return _rows(await retriever.ainvoke(query))

    def candidates(self, passages: list[Passage]) -> list[Document]:
        return [
            Document(id=passage.id, page_content=passage.text, metadata=json.loads(json.dumps(passage.metadata)))
            for passage in passages
        ]

    def rerank(self, reranker: Any, candidates: Any, query: str) -> list[Row]:
        return _rows(reranker.compress_documents(candidates, query))

    async def arerank(self, reranker: Any, candidates: Any, query: str) -> list[Row]:
        return _rows(await reranker.acompress_documents(candidates, query))

    def noted(self, reranker: Any, candidates: Any, query: str) -> list[Noted]:
        return [
            Noted.of_metadata(str(document.id), document.metadata["relevance_score"], document.metadata)
            for document in reranker.compress_documents(candidates, query)
        ]

    def results(self, reranker: Any, candidates: Any, query: str) -> list[Document]:
        return reranker.compress_documents(candidates, query)

    def metadata(self, result: Document) -> dict[str, Any]:
        return result.metadata

    def frozen(self, candidates: list[Document]) -> str:
        return json.dumps([candidate.model_dump() for candidate in candidates])

    def dumps(self, component: Any) -> str:
        return dumps(component)

    def loads(self, text: str, like: Any) -> Any:
        return load(json.loads(text), allowed_objects=CLASSES, valid_namespaces=["rerank_integrations"])


def _rows(documents: list[Document]) -> list[Row]:
    assert all(type(document.metadata["relevance_score"]) is float for document in documents)
    assert [document.metadata["relevance_rank"] for document in documents] == [*range(1, len(documents) + 1)]
    return [
        Row(str(document.id), document.metadata["relevance_score"], document.page_content) for document in documents
    ]
