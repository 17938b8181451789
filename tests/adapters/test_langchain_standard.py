"""LangChain's own suite for retrievers, unmodified."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from rerank_integrations import ColBERTIndex
from rerank_integrations.langchain import ColBERTRetriever


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
