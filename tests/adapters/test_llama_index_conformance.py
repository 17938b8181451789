"""Our own LlamaIndex components through the public suites of rerank_integrations.testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hooked import HookedEncoder, HookedScorer

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel
from rerank_integrations.llama_index import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    node_to_passage,
)
from rerank_integrations.testing import LlamaIndexRerankerConformance, LlamaIndexRetrieverConformance


class TestColBERTRerank(LlamaIndexRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, colbert: ColBERTModel) -> None:
        self.colbert = colbert

    def reranker(self, **options: Any) -> ColBERTRerank:
        return ColBERTRerank(self.colbert, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> ColBERTRerank:
        return ColBERTRerank(HookedEncoder(hook))


class TestCrossEncoderRerank(LlamaIndexRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, cross_encoder: CrossEncoderModel) -> None:
        self.cross_encoder = cross_encoder

    def reranker(self, **options: Any) -> CrossEncoderRerank:
        return CrossEncoderRerank(self.cross_encoder, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> CrossEncoderRerank:
        return CrossEncoderRerank(HookedScorer(hook))


class TestCascadeRerank(LlamaIndexRerankerConformance):
    @pytest.fixture(autouse=True)
    def _models(self, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
        self.colbert, self.cross_encoder = colbert, cross_encoder

    def reranker(self, **options: Any) -> CascadeRerank:
        stages = [ColBERTRerank(self.colbert, top_n=None), CrossEncoderRerank(self.cross_encoder, top_n=None)]
        return CascadeRerank(stages, **options)

    def hooked_reranker(self, hook: Callable[[], None]) -> CascadeRerank:
        return CascadeRerank([CrossEncoderRerank(HookedScorer(hook))])


class TestColBERTRetriever(LlamaIndexRetrieverConformance):
    @pytest.fixture(autouse=True)
    def _library(self, tmp_path: Path, colbert: ColBERTModel) -> Iterator[None]:
        self.folder, self.colbert = tmp_path, colbert
        self.opened: list[ColBERTIndex] = []
        yield
        for index in self.opened:
            index.close()

    def over(self, documents: Sequence[Any], model: Any, **options: Any) -> ColBERTRetriever:
        index = ColBERTIndex.create(self.folder / f"index-{len(self.opened)}", model)
        self.opened.append(index)
        index.upsert([node_to_passage(node) for node in documents])
        return ColBERTRetriever(index, **options)

    def retriever(self, documents: Sequence[Any], **options: Any) -> ColBERTRetriever:
        return self.over(documents, self.colbert, **options)

    def hooked_retriever(self, documents: Sequence[Any], hook: Callable[[], None]) -> ColBERTRetriever:
        return self.over(documents, HookedEncoder(hook))
