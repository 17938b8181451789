"""LangChain's own suite for retrievers, unmodified, over both retrievers and the one of the store."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    ColBERTVectorStore,
    CrossEncoderRerank,
    RerankingRetriever,
)


class TestColBERTRetriever(RetrieversIntegrationTests):
    library: ClassVar[ColBERTIndex]

    @pytest.fixture(autouse=True, scope="class")
    def _library(self, request: pytest.FixtureRequest, index: ColBERTIndex) -> None:
        request.cls.library = index

    @property
    def retriever_constructor(self) -> type[ColBERTRetriever]:
        return ColBERTRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.library}

    @property
    def retriever_query_example(self) -> str:
        return "read a zip file without extracting it"


class TestRerankingRetriever(RetrieversIntegrationTests):
    parts: ClassVar[tuple[ColBERTIndex, ColBERTModel, CrossEncoderModel]]

    @pytest.fixture(autouse=True, scope="class")
    def _parts(
        self,
        request: pytest.FixtureRequest,
        index: ColBERTIndex,
        colbert: ColBERTModel,
        cross_encoder: CrossEncoderModel,
    ) -> None:
        request.cls.parts = (index, colbert, cross_encoder)

    @property
    def retriever_constructor(self) -> Any:
        index, colbert, cross_encoder = self.parts

        def two_stages(top_n: int | None = None) -> RerankingRetriever:
            stages = [ColBERTRerank(model=colbert, top_n=5), CrossEncoderRerank(model=cross_encoder, top_n=None)]
            compressor = CascadeRerank(stages=stages, top_n=top_n)
            return RerankingRetriever(base_retriever=ColBERTRetriever(index=index), compressor=compressor)

        return two_stages

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {}

    @property
    def retriever_query_example(self) -> str:
        return "read a zip file without extracting it"

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"


class TestRetrieverOfTheStore(RetrieversIntegrationTests):
    library: ClassVar[ColBERTIndex]

    @pytest.fixture(autouse=True, scope="class")
    def _library(self, request: pytest.FixtureRequest, index: ColBERTIndex) -> None:
        request.cls.library = index

    @property
    def retriever_constructor(self) -> Any:
        return lambda k=4: ColBERTVectorStore(self.library).as_retriever(search_kwargs={"k": k})

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {}

    @property
    def retriever_query_example(self) -> str:
        return "read a zip file without extracting it"
