"""Models of both kinds of ColBERT checkpoint, which read the beginning of a text."""

from __future__ import annotations

import pytest

from rerank_integrations import ColBERTModel


@pytest.fixture(scope="module", params=["colbert_dir", "stanford_dir"])
def model(request: pytest.FixtureRequest) -> ColBERTModel:
    return ColBERTModel(request.getfixturevalue(request.param), dtype="float32", device="cpu", document_length=40)
