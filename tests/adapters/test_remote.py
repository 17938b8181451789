"""A remote reranker in the components: as a local scorer, sync and async, saved without its key."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from ranked_rows import candidates_of
from reranking_services import RerankingService, WordScorer, reranking_service

from rerank_integrations import Passage, RemoteReranker

pytest.importorskip("httpx")

QUERY = "the state of the art in a field"
SECRET = "secret-key-of-the-tests"


@pytest.fixture
def service() -> Iterator[RerankingService]:
    with reranking_service() as running:
        yield running


async def test_a_component_ranks_as_with_the_local_scorer(
    harness: Any, service: RerankingService, passages: list[Passage]
) -> None:
    candidates = harness.candidates(candidates_of(passages))
    local = harness.cross_encoder_rerank(model=WordScorer(), top_n=4)
    expected = harness.rerank(local, candidates, QUERY)
    remote = harness.cross_encoder_rerank(model=RemoteReranker(service.address, batch_size=5), top_n=4)
    assert harness.rerank(remote, candidates, QUERY) == expected
    assert await harness.arerank(remote, candidates, QUERY) == expected
    cascade = harness.cascade_rerank(stages=[local, remote])
    assert harness.rerank(cascade, candidates, QUERY) == expected
    assert await harness.arerank(cascade, candidates, QUERY) == expected


@pytest.mark.parametrize("kind", ["alone", "cascade"])
async def test_more_calls_than_threads_wait_for_a_service(
    harness: Any, service: RerankingService, passages: list[Passage], kind: str
) -> None:
    service.gate.clear()
    reranker = harness.cross_encoder_rerank(model=RemoteReranker(service.address, max_connections=40))
    if kind == "cascade":
        reranker = harness.cascade_rerank(stages=[harness.cross_encoder_rerank(model=WordScorer()), reranker])
    calls = [harness.arerank(reranker, harness.candidates(passages[:3]), QUERY) for _ in range(40)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    # The package's pool has 32 threads: with one for each call, the last calls would never be sent.
    while len(service.requests) < 40:
        await asyncio.sleep(0.01)
    service.gate.set()
    results = await asyncio.gather(*tasks)
    assert all(rows == results[0] for rows in results)


def test_a_component_is_saved_without_the_key(
    harness: Any, service: RerankingService, passages: list[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_THE_TESTS", SECRET)
    spec = {"url": service.address, "model": "m", "api_key_env": "KEY_OF_THE_TESTS", "timeout": 30.0}
    component = harness.cross_encoder_rerank(model=spec, top_n=2)
    text = harness.dumps(component)
    assert SECRET not in text
    assert "not_implemented" not in text
    candidates = harness.candidates(passages[:6])
    expected = harness.rerank(component, candidates, QUERY)
    for back in (harness.loads(text, like=component), pickle.loads(pickle.dumps(component))):
        assert back.model.options() == spec
        assert harness.rerank(back, candidates, QUERY) == expected
    assert {request.headers["authorization"] for request in service.requests} == {f"Bearer {SECRET}"}
    by_argument = harness.cross_encoder_rerank(model=RemoteReranker(service.address, api_key=SECRET))
    assert SECRET not in harness.dumps(by_argument)
    assert SECRET.encode() not in pickle.dumps(by_argument)
