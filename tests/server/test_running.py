"""The service as a process: it stops gracefully, and a kill during writes loses nothing that was answered."""

from __future__ import annotations

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from service import PASSAGES, ServiceProcess, eventually, toy_index
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, Passage

RERANK = {"query": "a query", "documents": ["a", "b"]}


@pytest.mark.slow
def test_a_signal_lets_requests_that_have_begun_finish(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    service = ServiceProcess.of_toy(tmp_path / "index", gate)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{service.address}/v1/rerank", json=RERANK, timeout=60)
        eventually(lambda: "rerank_requests_in_flight 1.0" in httpx.get(f"{service.address}/metrics", timeout=60).text)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{service.address}/ready", timeout=60).json() == {"status": "draining"})
        # It still accepts requests while it drains.
        assert httpx.get(f"{service.address}/health", timeout=60).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: any(line["message"] == "Shutting down" for line in service.log))
        assert not answer.done()
        gate.touch()
        assert answer.result().status_code == 200
    assert service.process.wait() == 0
    service.reading.join()
    assert service.other == []
    requests = [line for line in service.log if line["message"] == "request"]
    reranked = [line for line in requests if line["route"] == "/v1/rerank"]
    assert [(line["method"], line["status"], line["level"]) for line in reranked] == [("POST", 200, "INFO")]
    assert reranked[0]["ms"] > 0


def _store_until_it_is_gone(address: str, seed: int, stored: dict[str, str]) -> dict[str, str]:
    """Store passages one request after another, add those that were answered to `stored`, return the unanswered one."""
    drawn = random.Random(seed)
    number = 0
    while True:
        batch = {f"p{drawn.randrange(40)}": f"text {seed} {number} {place}" for place in range(3)}
        body = {"passages": [{"id": key, "text": text} for key, text in batch.items()]}
        try:
            response = httpx.put(f"{address}/v1/passages", json=body, timeout=60)
        except httpx.HTTPError:
            return batch
        assert response.status_code == 200
        stored.update(batch)
        number += 1


@pytest.mark.slow
def test_a_kill_during_writes_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "index"
    toy_index(path).close()
    state = {passage.id: passage.text for passage in PASSAGES}
    for round_number in range(4):
        service = ServiceProcess.of_toy(path)
        stored = dict(state)
        with ThreadPoolExecutor(1) as pool:
            storing = pool.submit(_store_until_it_is_gone, service.address, round_number, stored)
            eventually(lambda before=state, now=stored: now != before)
            assert service.stop(signal.SIGKILL) == -signal.SIGKILL
            unanswered = storing.result()
        with ColBERTIndex.open(path, ToyEncoder()) as index:
            found = {passage.id: passage.text for passage in index.get(where={})}
            index.verify()
        # The last write was either committed as a whole, or not at all.
        assert found in (stored, {**stored, **unanswered})
        state = found


def test_an_index_is_closed_with_the_application(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from rerank_integrations.server import ServerSettings, create_app

    index = toy_index(tmp_path / "index")
    with TestClient(create_app({"toy": index}, settings=ServerSettings(writable=True, warm_up=False))) as client:
        client.put("/v1/passages", json={"passages": [{"id": "new", "text": "new"}]})
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder()) as again:
        assert again.get(["new"]) == [Passage("new", "new")]
