"""A LangChain reranker and a retriever that pass every check, in steps that a broken one can override."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from langchain_core.callbacks import CallbackManager, CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.load.serializable import Serializable
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, PrivateAttr


def overlap(query: str, text: str) -> float:
    """Return the share of the text's letters that the query has."""
    return sum(text.lower().count(letter) for letter in set(query.lower())) / (len(text) + 1)


class GoodReranker(Serializable, BaseDocumentCompressor):
    model_config = ConfigDict(extra="forbid")

    top_n: int = 3
    _hook: Callable[[], None] | None = PrivateAttr(default=None)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def compress_documents(
        self, documents: Iterable[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        listed = list(documents)
        run = CallbackManager.configure(callbacks).on_chain_start(None, {"query": query}, name=type(self).__name__)
        try:
            self.check(query)
            ranked = self.rank(listed, query)
        except Exception as error:
            run.on_chain_error(error)
            raise
        run.on_chain_end({"documents": ranked})
        return ranked

    def check(self, query: str) -> None:
        if not isinstance(query, str):
            raise TypeError(f"the query is {query!r}; expected text")

    def rank(self, documents: list[Document], query: str) -> list[Document]:
        if self._hook:
            self._hook()
        scores = [self.score(query, document) for document in documents]
        order = self.order(scores)
        return self.cut(self.unique([self.result(documents[place], scores[place]) for place in order]))

    def score(self, query: str, document: Document) -> float:
        return overlap(query, document.page_content)

    def order(self, scores: list[float]) -> list[int]:
        return sorted(range(len(scores)), key=lambda place: -scores[place])

    def unique(self, documents: list[Document]) -> list[Document]:
        return list({(document.id, document.page_content): document for document in documents[::-1]}.values())[::-1]

    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: self.top_n]

    def result(self, document: Document, score: float) -> Document:
        return Document(
            id=document.id,
            page_content=document.page_content,
            metadata={**document.metadata, "relevance_score": score},
        )


class GoodRetriever(BaseRetriever):
    model_config = ConfigDict(extra="forbid")

    documents: list[Document]
    k: int = 3
    _hook: Callable[[], None] | None = PrivateAttr(default=None)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def check(self, query: str) -> None:
        if not isinstance(query, str):
            raise TypeError(f"the query is {query!r}; expected text")

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        self.check(query)
        if self._hook:
            self._hook()
        return self.search(query)

    def search(self, query: str) -> list[Document]:
        unique = list({document.id: document for document in self.documents}.values())
        scored = [(self.score(query, document), document) for document in unique]
        return self.cut([self.result(document, score) for score, document in sorted(scored, key=lambda pair: -pair[0])])

    def score(self, query: str, document: Document) -> float:
        return overlap(query, document.page_content)

    def cut(self, documents: list[Document]) -> list[Document]:
        return documents[: self.k]

    def result(self, document: Document, score: float) -> Document:
        return Document(
            id=document.id,
            page_content=document.page_content,
            metadata={**document.metadata, "relevance_score": score},
        )


def with_hook(component: Any, hook: Callable[[], None]) -> Any:
    component._hook = hook
    return component
