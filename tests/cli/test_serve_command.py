"""``serve``: what it refuses before it listens, and a service that it runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest
from command_line import Cli
from reranking_services import WordScorer, reranking_service
from service import ServiceProcess

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage


def test_what_cannot_be_served_is_refused(cli: Cli, tmp_path: Path, index_path: Path) -> None:
    short = tmp_path / "token"
    short.write_text("short", "utf-8")
    for arguments, message in (
        ([], "neither indexes nor rerankers"),
        ([tmp_path / "nothing"], "is not an index"),
        ([f"a b={index_path}"], "'a b'"),
        ([index_path, f"{index_path.name}={index_path}"], f"'{index_path.name}' is the name of two"),
        (["--reranker", "same=starter", "--colbert", "same=starter"], "'same' is the name of two models"),
        ([index_path, "--token-file", short], "the setting token"),
        ([index_path, "--bi-encoder", "name="], "the bi-encoder is ''"),
        (["--reranker", "starter", "--allow-host", "http://a"], "the allowed host is 'http://a'"),
        (["--reranker", "http://127.0.0.1/v1/rerank#a"], "contains a fragment"),
        (["--reranker", 'a={"url": "http://127.0.0.1", "api_key": "k"}'], "api_key_env"),
        (["--reranker", "http://gpu:1/v1/rerank", "--reranker", "http://gpu:2/rerank?a=b"], "'gpu' is the name of two"),
    ):
        done = cli("serve", *arguments)
        assert (done.code, message in done.err) == (1, True), done.err
    assert cli("serve", index_path, "--port", "70000").code == 2


@pytest.mark.slow
def test_a_served_index_and_reranker(tmp_path: Path, colbert_dir: Path, cross_encoder_dir: Path) -> None:
    texts = ["the net profit grew", "the river rose after the rain"]
    with ColBERTIndex.create(tmp_path / "index", ColBERTModel(colbert_dir)) as index:
        index.upsert(Passage(str(place), text) for place, text in enumerate(texts))
        hits = index.search("net profit")
    token = tmp_path / "token"
    token.write_text("the token of the test\n", "utf-8")
    arguments = [f"docs={tmp_path / 'index'}", "--model", colbert_dir, "--reranker", f"ce={cross_encoder_dir}"]
    arguments += ["--token-file", token, "--port", "0"]
    command = ["-c", "from rerank_integrations.cli import main; main()", "serve", *map(str, arguments)]
    service = ServiceProcess(command)
    with httpx.Client(base_url=service.address, timeout=60) as client:
        assert client.get("/v1/models").status_code == 401
        client.headers["authorization"] = "Bearer the token of the test"
        found = client.post("/v1/search", json={"query": "net profit"}).json()["hits"]
        assert [(hit["id"], hit["score"]) for hit in found] == [(hit.id, pytest.approx(hit.score)) for hit in hits]
        ranked = client.post("/v1/rerank", json={"query": "net profit", "documents": texts}).json()
        scores = CrossEncoderModel(cross_encoder_dir).score("net profit", texts)
        assert ranked["model"] == "ce"
        for item in ranked["results"]:
            assert item["relevance_score"] == pytest.approx(scores[item["index"]], abs=1e-3)
        assert client.put("/v1/passages", json={"passages": [{"text": "a"}]}).status_code == 403
    assert service.stop(signal.SIGTERM) == 0
    assert any(str(tmp_path / "index") in line["message"] for line in service.log)
    assert "the token of the test" not in str(service.log)


@pytest.mark.slow
def test_a_served_service(tmp_path: Path) -> None:
    texts = ["the net profit grew", "the river rose after the rain"]
    with reranking_service() as other:
        address = f"{other.address}/v1/rerank?version=1"
        as_object = json.dumps({"url": other.address, "model": "m", "api": "tei"})
        arguments = ["--reranker", address, "--reranker", f"tei={as_object}", "--port", "0"]
        service = ServiceProcess(["-c", "from rerank_integrations.cli import main; main()", "serve", *arguments])
        # It is ready without having asked the other one.
        assert other.requests == []
        # No page in a browser asks it by another name.
        assert httpx.get(f"{service.address}/v1/models", headers={"host": "rebound.example"}).status_code == 421
        for name, path in (("127.0.0.1", "/v1/rerank?version=1"), ("tei", "/rerank")):
            body = {"model": name, "query": "net profit", "documents": texts}
            ranked = httpx.post(f"{service.address}/v1/rerank", json=body, timeout=60).json()
            scores = WordScorer().score("net profit", texts)
            assert {item["index"]: item["relevance_score"] for item in ranked["results"]} == dict(enumerate(scores))
            assert other.requests[-1].path == path
    failed = httpx.post(f"{service.address}/v1/rerank", json={**body, "model": "tei"}, timeout=120)
    assert (failed.status_code, failed.json()["code"]) == (502, "remote_failed")
    assert service.stop(signal.SIGTERM) == 0
