"""Async calls give what sync calls give, run side by side, and leave the event loop free."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage

TOGETHER = 8
PATIENCE = 30


async def test_async_is_sync(
    harness: Any,
    index: ColBERTIndex,
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
    passages: list[Passage],
) -> None:
    retriever = harness.retriever(index)
    for reranker in (
        harness.colbert_rerank(model=colbert, index=index),
        harness.cross_encoder_rerank(model=cross_encoder),
    ):
        for query in QUERIES[:3]:
            candidates = harness.candidates(candidates_of(passages))
            assert await harness.aretrieve(retriever, query) == harness.retrieve(retriever, query)
            assert await harness.arerank(reranker, candidates, query) == harness.rerank(reranker, candidates, query)


@pytest.mark.slow
async def test_32_concurrent_calls_on_shared_components(
    harness: Any, index: ColBERTIndex, cross_encoder: CrossEncoderModel, passages: list[Passage]
) -> None:
    retriever = harness.retriever(index)
    rerankers = [harness.colbert_rerank(index=index), harness.cross_encoder_rerank(model=cross_encoder)]
    candidates = harness.candidates(candidates_of(passages))
    queries = (QUERIES * 4)[:32]
    retrieved = [harness.retrieve(retriever, query) for query in queries]
    assert await asyncio.gather(*(harness.aretrieve(retriever, query) for query in queries)) == retrieved
    for reranker in rerankers:
        reranked = [harness.rerank(reranker, candidates, query) for query in queries]
        calls = (harness.arerank(reranker, candidates, query) for query in queries)
        assert await asyncio.gather(*calls) == reranked


@pytest.mark.slow
def test_32_threads_on_shared_components(harness: Any, index: ColBERTIndex, passages: list[Passage]) -> None:
    retriever, reranker = harness.retriever(index), harness.colbert_rerank(index=index)
    candidates = harness.candidates(candidates_of(passages))
    queries = (QUERIES * 4)[:32]
    with ThreadPoolExecutor(32) as pool:
        retrieved = list(pool.map(lambda query: harness.retrieve(retriever, query), queries))
        reranked = list(pool.map(lambda query: harness.rerank(reranker, candidates, query), queries))
    assert retrieved == [harness.retrieve(retriever, query) for query in queries]
    assert reranked == [harness.rerank(reranker, candidates, query) for query in queries]


async def test_the_event_loop_is_free_while_a_reranker_works(harness: Any, passages: list[Passage]) -> None:
    meeting = _Meeting()
    reranker = harness.cross_encoder_rerank(model=meeting, top_n=None)
    candidates = harness.candidates(passages[:3])
    results = await asyncio.gather(*(harness.arerank(reranker, candidates, "a query") for _ in range(TOGETHER)))
    assert all(len(rows) == 3 for rows in results)


async def test_the_event_loop_is_free_while_a_retriever_works(
    harness: Any, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    meeting = _Meeting(colbert)
    with ColBERTIndex.create(None, meeting) as index:
        index.upsert(passages[:3])
        retriever = harness.retriever(index)
        results = await asyncio.gather(*(harness.aretrieve(retriever, "a query") for _ in range(TOGETHER)))
    assert all(len(rows) == 3 for rows in results)


class _Meeting:
    """A model whose calls wait for one another: they return only if all run at the same time."""

    def __init__(self, model: ColBERTModel | None = None) -> None:
        self._model = model
        self._barrier = threading.Barrier(TOGETHER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_queries(self, texts: Any) -> Any:
        assert self._model is not None
        self._barrier.wait(PATIENCE)
        return self._model.encode_queries(texts)

    def score(self, query: str, texts: list[str]) -> list[float]:
        self._barrier.wait(PATIENCE)
        return [float(len(text)) for text in texts]
