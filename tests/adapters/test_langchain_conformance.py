"""Our own LangChain components through the public suites of rerank_integrations.testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hooked import HookedEncoder, HookedScorer

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    RerankingRetriever,
)
from rerank_integrations.testing import LangChainRerankerConformance, LangChainRetrieverConformance


class TestColBERTRerank(LangChainRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, colbert: ColBERTModel) -> None:
        self.colbert = colbert

    def reranker(self, **options: Any) -> ColBERTRerank:
        return ColBERTRerank(model=self.colbert, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> ColBERTRerank:
        return ColBERTRerank(model=HookedEncoder(hook))


class TestCrossEncoderRerank(LangChainRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, cross_encoder: CrossEncoderModel) -> None:
        self.cross_encoder = cross_encoder

    def reranker(self, **options: Any) -> CrossEncoderRerank:
        return CrossEncoderRerank(model=self.cross_encoder, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> CrossEncoderRerank:
        return CrossEncoderRerank(model=HookedScorer(hook))


class TestCascadeRerank(LangChainRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
        self.colbert, self.cross_encoder = colbert, cross_encoder

    def reranker(self, **options: Any) -> CascadeRerank:
        stages = [
            ColBERTRerank(model=self.colbert, top_n=None),
            CrossEncoderRerank(model=self.cross_encoder, top_n=None),
        ]
        return CascadeRerank(stages=stages, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> CascadeRerank:
        return CascadeRerank(stages=[CrossEncoderRerank(model=HookedScorer(hook))])


class _OverAnIndex(LangChainRetrieverConformance):
    """Retrievers over indexes in folders, which are closed after each check."""

    @pytest.fixture(autouse=True)
    def _library(self, tmp_path: Path, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> Iterator[None]:
        self.folder, self.colbert, self.cross_encoder = tmp_path, colbert, cross_encoder
        self.opened: list[ColBERTIndex] = []
        yield
        for index in self.opened:
            index.close()

    def over(self, documents: Sequence[Any], model: Any, **options: Any) -> ColBERTRetriever:
        path = self.folder / f"index-{len(self.opened)}"
        retriever = ColBERTRetriever.from_documents(documents, model, path=path)
        self.opened.append(retriever.index)
        return ColBERTRetriever(index=retriever.index, **options)


class TestColBERTRetriever(_OverAnIndex):
    def retriever(self, documents: Sequence[Any], **options: Any) -> ColBERTRetriever:
        return self.over(documents, self.colbert, **options)

    def hooked_retriever(self, documents: Sequence[Any], hook: Callable[[], None]) -> ColBERTRetriever:
        return self.over(documents, HookedEncoder(hook))


class TestRerankingRetriever(_OverAnIndex):
    count_argument = "top_n"

    def retriever(self, documents: Sequence[Any], top_n: int = 3, **options: Any) -> RerankingRetriever:
        reranker = CrossEncoderRerank(model=self.cross_encoder, top_n=top_n)
        return RerankingRetriever(base_retriever=self.over(documents, self.colbert), compressor=reranker, **options)

    def hooked_retriever(self, documents: Sequence[Any], hook: Callable[[], None]) -> RerankingRetriever:
        reranker = CrossEncoderRerank(model=HookedScorer(hook))
        return RerankingRetriever(base_retriever=self.over(documents, self.colbert), compressor=reranker)
