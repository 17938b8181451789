"""Applications over an index of toy vectors, which need no torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from service import WordScorer, toy_index

from rerank_integrations import ColBERTIndex
from rerank_integrations.server import ServerSettings, create_app


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with toy_index() as opened:
        yield opened


@pytest.fixture
def app(index: ColBERTIndex) -> FastAPI:
    return create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(writable=True, warm_up=False))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
