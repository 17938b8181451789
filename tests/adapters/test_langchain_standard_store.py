"""LangChain's own suite for vector stores, unmodified, over an exact and over a compressed index."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex
from rerank_integrations.langchain import ColBERTVectorStore


class TestColBERTVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[ColBERTVectorStore]:  # type: ignore[override]
        with ColBERTIndex.create(None, ToyEncoder()) as index:
            yield ColBERTVectorStore(index)
