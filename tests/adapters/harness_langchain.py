"""The behaviour suite's view of the LangChain components."""

from __future__ import annotations

import json
from typing import Any

from adapters.rows import Row
from langchain_core.documents import Document
from langchain_core.load import dumps, load

from rerank_integrations import Passage
from rerank_integrations.langchain import ColBERTRerank, ColBERTRetriever, CrossEncoderRerank

CLASSES = [ColBERTRerank, ColBERTRetriever, CrossEncoderRerank]


class Harness:
    extra = "langchain"
    colbert_rerank = ColBERTRerank
    cross_encoder_rerank = CrossEncoderRerank

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
