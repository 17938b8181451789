"""What is refused, with which status, in one shape, and without a path of the server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service import PASSAGES, GatedScorer, WordScorer, eventually, running, send_raw, toy_index

import rerank_integrations.errors
from rerank_integrations import ColBERTIndex, InvalidInputError, MissingExtraError, RerankError
from rerank_integrations.server import ServerSettings, create_app
from rerank_integrations.server.errors import STATUS_TABLE, TooManyRequestsError

JSON = {"content-type": "application/json"}
RERANK = {"query": "a query", "documents": ["a", "b"]}
TOKEN = "the token of the tests"


def check_error(response: Any, status: int, code: str) -> str:
    """Assert the shape of an error and return its message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"code", "message", "detail", "request_id"}
    assert body["code"] == code
    assert body["message"] == body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["message"])


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        (b"{", 400, "bad_request", "JSON"),
        (b"\xff\xfe", 400, "bad_request", ""),
        (b"[" * 50_000, 400, "bad_request", ""),
        (b"9" * 5_000, 400, "bad_request", ""),
        (b"", 422, "invalid_input", "body"),
        (b"[]", 422, "invalid_input", "body"),
        (b'{"query": "q"}', 422, "invalid_input", "documents"),
        (b'{"query": "q", "documents": "one"}', 422, "invalid_input", "documents"),
        (b'{"query": "q", "documents": [1]}', 422, "invalid_input", "documents.0"),
        (b'{"query": " ", "documents": ["a"]}', 422, "invalid_input", "query"),
        (b'{"query": "q", "documents": ["a"], "top_n": true}', 422, "invalid_input", "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": 0}', 422, "invalid_input", "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": NaN}', 422, "invalid_input", "top_n"),
        (b'{"query": "q", "documents": ["a"], "rank_fields": ["a"]}', 422, "invalid_input", "rank_fields"),
        (b'{"query": "\\ud800", "documents": ["a"]}', 400, "bad_request", "JSON"),
        (b'{"query": "q", "documents": ["\\ud800"]}', 400, "bad_request", "JSON"),
        (b'{"query": "q", "documents": ["a"], "\\ud800": 1}', 400, "bad_request", "JSON"),
        (b'{"query": "q", "documents": ["a"], "model": "../../etc/passwd"}', 404, "unknown_model", "words"),
    ],
)
def test_a_bad_rerank_request(client: TestClient, body: bytes, status: int, code: str, named: str) -> None:
    response = client.post("/v1/rerank", content=body, headers=JSON)
    assert named in check_error(response, status, code)


@pytest.mark.parametrize(
    ("path", "request_body", "status", "code"),
    [
        ("/v1/search", {"query": "q", "index": "nobody"}, 404, "unknown_index"),
        ("/v1/search", {"query": "q", "index": "/etc"}, 404, "unknown_index"),
        ("/v1/search", {"query": "q", "k": 10**30}, 422, "invalid_input"),
        ("/v1/search", {"query": "q", "where": {"year": {"$near": 1}}}, 422, "invalid_input"),
        ("/v1/search", {"query": "q", "where": {"a\0": 1}}, 422, "invalid_input"),
        ("/v1/search", {"query": "q", "reranker": "nobody"}, 404, "unknown_model"),
        ("/v1/embeddings", {"input": "a", "model": "words"}, 404, "unknown_model"),
        ("/v1/embeddings", {"input": ["a"] * 1001}, 422, "invalid_input"),
        ("/v1/rerank", {"query": "q", "documents": ["a"] * 1001}, 422, "invalid_input"),
        ("/nowhere", {}, 404, "not_found"),
        ("/health", {}, 405, "method_not_allowed"),
    ],
)
def test_other_bad_requests(client: TestClient, path: str, request_body: Any, status: int, code: str) -> None:
    check_error(client.post(path, json=request_body), status, code)


@pytest.mark.parametrize("where", ["{", "[]", '"a"', "null", "[" * 5_000, '{"year": {"$near": 1}}'])
def test_a_bad_filter_in_a_parameter(client: TestClient, where: str) -> None:
    check_error(client.get("/v1/passages", params={"where": where}), 422, "invalid_input")
    check_error(client.delete("/v1/passages", params={"where": where}), 422, "invalid_input")


def test_the_table_has_every_error_of_the_package() -> None:
    errors = [
        value
        for value in vars(rerank_integrations.errors).values()
        if isinstance(value, type) and issubclass(value, RerankError)
    ]
    assert set(errors) <= set(STATUS_TABLE)
    assert all(
        problem.message is not None
        for problem in STATUS_TABLE.values()
        if problem.status >= 500 and problem.status != 504
    )


def _made(kind: type[BaseException], message: str) -> BaseException:
    if issubclass(kind, MissingExtraError | TooManyRequestsError):
        return kind(message, 1)  # type: ignore[arg-type]
    return kind(message)


@pytest.mark.parametrize("kind", STATUS_TABLE, ids=lambda kind: kind.__name__)
def test_no_error_names_a_path_of_the_server(kind: type[BaseException], index: ColBERTIndex) -> None:
    problem = STATUS_TABLE[kind]

    class Failing:
        name = "/models/secret"

        def score(self, query: str, texts: list[str]) -> list[float]:
            raise _made(kind, f"{index.path}/segments/7 and {index.path.resolve()} and /models/secret are broken")

    app = create_app({"toy": index}, {"failing": Failing()}, ServerSettings(warm_up=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        message = check_error(client.post("/v1/rerank", json=RERANK), problem.status, problem.code)
    assert str(index.path) not in message
    assert "/models" not in message


def test_pages_in_a_browser_reach_nothing_by_another_name(index: ColBERTIndex) -> None:
    settings = ServerSettings(writable=True, warm_up=False)
    with TestClient(create_app({"toy": index}, settings=settings, allowed_hosts=["Search.example.org"])) as client:
        for host in ("127.0.0.1", "localhost:8000", "[::1]", "[::1]:80", "LOCALHOST", "search.example.org:443"):
            assert client.get("/v1/indexes", headers={"host": host}).status_code == 200
        for host in ("rebound.example", "127.0.0.1.rebound.example:8000", "localhost:8000@rebound.example", "", "::1"):
            refused = client.put("/v1/passages", json={"passages": [{"text": "a"}]}, headers={"host": host})
            check_error(refused, 421, "host_not_allowed")
            assert client.get("/", headers={"host": host}).status_code == 421
            assert client.get("/health", headers={"host": host}).status_code == 200
        assert index.count() == len(PASSAGES)


@pytest.mark.parametrize("host", ["", "*", "http://a.example", ":80"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="the allowed host is"):
        create_app({}, {"words": WordScorer()}, allowed_hosts=[host])


def test_a_token_is_asked_for_before_anything_is_read(index: ColBERTIndex) -> None:
    app = create_app({"toy": index}, settings=ServerSettings(token=TOKEN, warm_up=False))  # type: ignore[arg-type]
    with TestClient(app) as client:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
                response = client.get(path, headers=wrong)
                check_error(response, 401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
        check_error(client.post("/v1/rerank", content=b"{"), 401, "unauthorized")
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code in (200, 503)
        for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
            assert client.get("/v1/models", headers={"authorization": header}).status_code == 200


@pytest.fixture(scope="module")
def small_address() -> Iterator[str]:
    settings_of_it = ServerSettings(max_body_bytes=1000, body_timeout=0.5, warm_up=False)
    with toy_index() as index, running(create_app({"toy": index}, {"words": WordScorer()}, settings_of_it)) as address:
        yield address


def test_a_large_body_is_refused_by_its_stated_length(small_address: str) -> None:
    response = httpx.post(f"{small_address}/v1/rerank", content=b"x" * 1001, headers=JSON, timeout=60)
    check_error(response, 413, "body_too_large")


def test_a_large_body_without_a_length_is_refused_as_it_arrives(small_address: str) -> None:
    head = (
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    # The body never ends.
    answer = send_raw(small_address, head + (b"64\r\n" + b"x" * 100 + b"\r\n") * 11)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer
    fitting = json.dumps({**RERANK, "documents": ["a" * 900]}).encode()
    assert (
        httpx.post(f"{small_address}/v1/rerank", content=iter([fitting]), headers=JSON, timeout=60).status_code == 200
    )


def test_a_body_that_never_comes_is_not_waited_for(small_address: str) -> None:
    head = (
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    answer = send_raw(small_address, head)
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_full_service_answers_429_until_there_is_room() -> None:
    scorer = GatedScorer()
    app = create_app({}, {"gated": scorer}, ServerSettings(max_requests=3, warm_up=False))
    with running(app) as address, ThreadPoolExecutor(3) as pool:
        url = f"{address}/v1/rerank"
        waiting = [pool.submit(httpx.post, url, json=RERANK, timeout=60) for _ in range(3)]
        eventually(lambda: "rerank_requests_in_flight 3.0" in httpx.get(f"{address}/metrics", timeout=60).text)
        response = httpx.post(url, json=RERANK, timeout=60)
        check_error(response, 429, "too_many_requests")
        assert int(response.headers["retry-after"]) >= 1
        assert httpx.get(f"{address}/health", timeout=60).status_code == 200
        scorer.gate.set()
        assert [future.result().status_code for future in waiting] == [200] * 3
        assert httpx.post(url, json=RERANK, timeout=60).status_code == 200
    assert len(scorer.queries) == 4


def test_a_time_out_answers_504_and_stops_the_work() -> None:
    scorer = GatedScorer()
    app = create_app({}, {"gated": scorer}, ServerSettings(timeout=0.3, warm_up=False))
    with running(app) as address:
        check_error(httpx.post(f"{address}/v1/rerank", json=RERANK, timeout=60), 504, "timeout")
        eventually(lambda: scorer.stopped == ["a query"])
        scorer.gate.set()
        assert httpx.post(f"{address}/v1/rerank", json=RERANK, timeout=60).status_code == 200


def test_a_time_out_while_models_are_loaded_says_so() -> None:
    scorer = GatedScorer()
    with running(create_app({}, {"gated": scorer}, ServerSettings(timeout=0.3))) as address:
        response = httpx.post(f"{address}/v1/rerank", json=RERANK, timeout=60)
        assert check_error(response, 504, "timeout").endswith("the models are still being loaded")
        scorer.gate.set()


def _send_and_keep_open(address: str, query: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    body = json.dumps({**RERANK, "query": query}).encode()
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_leaves_stops_its_work_and_leaves_the_queue() -> None:
    scorer = GatedScorer()
    with running(create_app({}, {"gated": scorer}, ServerSettings(warm_up=False))) as address:
        computed = _send_and_keep_open(address, "computed")
        eventually(lambda: scorer.queries == ["computed"])
        queued = _send_and_keep_open(address, "queued")
        eventually(lambda: "rerank_requests_in_flight 2.0" in httpx.get(f"{address}/metrics", timeout=60).text)
        queued.close()
        eventually(lambda: "rerank_requests_in_flight 1.0" in httpx.get(f"{address}/metrics", timeout=60).text)
        computed.close()
        eventually(lambda: scorer.stopped == ["computed"])
        scorer.gate.set()
        assert httpx.post(f"{address}/v1/rerank", json=RERANK, timeout=60).status_code == 200
    assert scorer.queries == ["computed", "a query"]


def test_an_unexpected_error_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def score(self, query: str, texts: list[str]) -> list[float]:
            raise ZeroDivisionError("/srv/secret")

    with TestClient(create_app({}, {"broken": Broken()}, ServerSettings(warm_up=False))) as client:
        response = client.post("/v1/rerank", json=RERANK)
    assert "secret" not in check_error(response, 500, "internal_error")
    assert any("ZeroDivisionError" in (record.exc_text or str(record.exc_info)) for record in caplog.records)


def test_the_event_loop_is_free_while_a_scorer_computes() -> None:
    scorer = GatedScorer()
    with running(create_app({}, {"gated": scorer}, ServerSettings(warm_up=False))) as address:
        connection = _send_and_keep_open(address, "computed")
        eventually(lambda: scorer.queries == ["computed"])
        # Answered while the scorer has not ended.
        assert httpx.get(f"{address}/v1/models", timeout=60).status_code == 200
        assert not scorer.gate.is_set()
        scorer.gate.set()
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()


def test_a_model_that_cannot_be_loaded_makes_the_service_not_ready(tmp_path: Path) -> None:
    class Broken:
        def score(self, query: str, texts: list[str]) -> list[float]:
            raise InvalidInputError("no weights")

    with TestClient(create_app({}, {"broken": Broken()})) as client:
        eventually(lambda: client.get("/ready").json() != {"status": "loading"})
        response = client.get("/ready")
        assert (response.status_code, response.json()) == (503, {"status": "failed"})
        assert client.get("/health").status_code == 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
FIELDS = ["query", "documents", "model", "index", "k", "where", "ids", "top_n", "passages", "input", "text", "id"]
BODIES = st.binary(max_size=50) | st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=4).map(
    lambda value: json.dumps(value).encode()
)
CALLS = [
    ("POST", "/v1/rerank"),
    ("POST", "/v1/search"),
    ("PUT", "/v1/passages"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/explain"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_odd_bodies_never_break_the_service(method: str, path: str, client: TestClient) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def check(body: bytes) -> None:
        response = client.request(method, path, content=body, headers=JSON)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            check_error(response, response.status_code, response.json()["code"])

    check()


def test_requests_are_recorded(app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rerank_integrations.server")
    response = client.post("/v1/rerank", json=RERANK, headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    bad = client.get("/v1/passages/../../etc/passwd", headers={"x-request-id": "a\tb" * 30})
    records = [record for record in caplog.records if record.getMessage() == "request"]
    assert [(record.route, record.status) for record in records] == [("/v1/rerank", 200), ("none", 404)]  # type: ignore[attr-defined]
    assert records[0].request_id == "mine-1"  # type: ignore[attr-defined]
    assert bad.headers["x-request-id"] == records[1].request_id != "a\tb" * 30  # type: ignore[attr-defined]
    assert "a query" not in caplog.text
    metrics = client.get("/metrics").text
    assert 'rerank_requests_total{method="POST",route="/v1/rerank",status="200"} 1.0' in metrics
    assert 'rerank_batch_requests_count{queue="rerank words"} 1.0' in metrics
