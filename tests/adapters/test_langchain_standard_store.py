"""LangChain's own suite for vector stores, unmodified, over an exact and over a compressed index."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex
from rerank_integrations.langchain import ColBERTVectorStore


@pytest.fixture(scope="module")
def compressed() -> Iterator[ColBERTIndex]:
    """Make an index that is compressed; it stays so when its passages are removed."""
    with ColBERTIndex.create(None, ToyEncoder(), nbits=4) as index:
        index.upsert({"id": f"p{number}", "text": f"w{number % 97} w{number % 89}"} for number in range(4200))
        yield index


class TestColBERTVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[ColBERTVectorStore]:  # type: ignore[override]
        with ColBERTIndex.create(None, ToyEncoder()) as index:
            yield ColBERTVectorStore(index)


@pytest.mark.slow
class TestColBERTVectorStoreOfACompressedIndex(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, compressed: ColBERTIndex) -> ColBERTVectorStore:  # type: ignore[override]
        store = ColBERTVectorStore(compressed)
        store.delete()
        assert compressed.stats().kind == "plaid"
        return store
