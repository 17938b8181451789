"""Spans of the service: a request continues its caller's trace, batches are linked, and serve exports them by OTLP."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")
pytest.importorskip("opentelemetry.instrumentation.fastapi", reason="its instrumentation of FastAPI is not installed")

from fastapi.testclient import TestClient
from interpreter import without
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from otlp_receiver import otlp_receiver, plain
from service import GatedScorer, ServiceProcess, WordScorer, eventually, running
from spans import Spans, attributes, collected
from toy import child_env

from rerank_integrations import ColBERTIndex
from rerank_integrations.server import ServerSettings, create_app
from rerank_integrations.server.logs import JsonFormatter

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SETTINGS = ServerSettings(warm_up=False)


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as made:
        yield made


def test_a_request_continues_the_trace_of_its_caller(index: ColBERTIndex, spans: Spans) -> None:
    app = create_app({"toy": index}, settings=SETTINGS)
    with TestClient(app) as client:
        assert client.post("/v1/search", json={"query": "light"}, headers=TRACEPARENT).status_code == 200
    above = "POST /v1/search"
    batch = f"{above} > queue search toy > batch search toy"
    assert spans.tree() == [
        above,
        f"{above} > queue search toy",
        batch,
        f"{batch} > ColBERTIndex.search_many",
        f"{batch} > ColBERTIndex.search_many > ToyEncoder.encode_queries",
    ]
    request = spans.one(above)
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert format_span_id(request.parent.span_id) == PARENT
    assert {format_trace_id(span.context.trace_id) for span in spans.all} == {TRACE}


def test_probes_have_no_spans_and_refusals_do(index: ColBERTIndex, spans: Spans) -> None:
    with TestClient(create_app({"toy": index}, settings=SETTINGS)) as client:
        for path in ("/health", "/ready", "/metrics"):
            client.get(path)
        assert spans.all == []
        assert client.post("/v1/search", json={"query": "light", "index": "other"}).status_code == 404
    assert [span.name for span in spans.all] == ["POST /v1/search"]
    # An error of the client is none of the service.
    assert spans.all[0].status.status_code is StatusCode.UNSET


def test_a_batch_and_its_callers_are_linked_to_one_another(spans: Spans) -> None:
    scorer = GatedScorer()
    body = {"documents": ["a", "b"]}
    with running(create_app({}, {"gated": scorer}, SETTINGS)) as address, ThreadPoolExecutor(4) as pool:

        def ask(query: str) -> int:
            return httpx.post(f"{address}/v1/rerank", json={**body, "query": query}, timeout=120).status_code

        first = pool.submit(ask, "first")
        eventually(lambda: scorer.queries == ["first"])
        others = [pool.submit(ask, query) for query in ("second", "third", "fourth")]

        def waiting() -> bool:
            text = httpx.get(f"{address}/metrics", timeout=120).text
            return "rerank_requests_in_flight 4.0" in text

        eventually(waiting)
        scorer.gate.set()
        assert [call.result() for call in (first, *others)] == [200] * 4
    callers = spans.named("queue rerank gated")
    batches = spans.named("batch rerank gated")
    linked = {link.context.span_id for batch in batches for link in batch.links}
    assert linked == {caller.context.span_id for caller in callers}
    assert sum(attributes(batch)["rerank_integrations.callers"] for batch in batches) == 4
    for caller in callers:
        (link,) = caller.links
        (batch,) = [batch for batch in batches if batch.context.span_id == link.context.span_id]
        assert caller.context.span_id in {back.context.span_id for back in batch.links}
    # A batch is in the trace of one of its callers.
    for batch in batches:
        assert batch.parent is not None
        assert batch.parent.span_id in {link.context.span_id for link in batch.links}
    rankings = spans.named("Reranker.rank")
    assert {span.parent.span_id for span in rankings if span.parent} == {batch.context.span_id for batch in batches}


def test_an_error_of_the_scorer_is_on_every_span_of_its_request(spans: Spans) -> None:
    class Broken(WordScorer):
        def score(self, query: str, texts: list[str]) -> list[float]:
            raise RuntimeError("broken")

    app = create_app({}, {"broken": Broken()}, SETTINGS)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/v1/rerank", json={"query": "a", "documents": ["b"]}).status_code == 500
    names = {span.name for span in spans.all if span.status.status_code is StatusCode.ERROR}
    assert names == {"POST /v1/rerank", "queue rerank broken", "batch rerank broken", "Reranker.rank"}


def test_log_lines_have_the_ids_of_their_trace(index: ColBERTIndex, spans: Spans) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("rerank_integrations.server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with TestClient(create_app({"toy": index}, settings=SETTINGS)) as client:
            client.post("/v1/search", json={"query": "light"}, headers=TRACEPARENT)
            client.get("/health")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    lines = {line["route"]: line for line in map(json.loads, stream.getvalue().splitlines()) if "route" in line}
    request = spans.one("POST /v1/search")
    assert lines["/v1/search"]["trace_id"] == TRACE
    assert lines["/v1/search"]["span_id"] == format_span_id(request.context.span_id)
    assert "trace_id" not in lines["/health"]


def test_filters_in_the_address_are_hidden_with_the_inputs(
    index: ColBERTIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    with collected() as spans, TestClient(create_app({"toy": index}, settings=SETTINGS)) as client:
        assert client.get("/v1/passages", params={"where": '{"year": 2024}'}).status_code == 200
    assert "2024" not in spans.texts()


def test_an_application_without_telemetry_has_no_spans(index: ColBERTIndex) -> None:
    app = create_app({"toy": index}, settings=SETTINGS)
    with collected() as spans, TestClient(app) as client:
        client.get("/v1/models", headers=TRACEPARENT)
    assert spans.all == []


SERVE = """
from service import WordScorer, toy_index
from rerank_integrations.server import ServerSettings, create_app, serve
from rerank_integrations.server.logs import log_as_json
from rerank_integrations.server.tracing import tracing_by_environment
log_as_json()
index = toy_index()
with tracing_by_environment():
    serve(create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(warm_up=False)), port=0)
"""


@pytest.mark.slow
def test_tools_over_http_are_traced_too(cross_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp", reason="the tools need the extra [mcp]")
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        command = ["-c", "from rerank_integrations.cli import main; main()", "mcp", "--http", "--port", "0"]
        service = ServiceProcess([*command, "--reranker", f"ce={cross_encoder_dir}"])
        call = {"name": "rerank", "arguments": {"query": "net profit", "documents": ["the net profit grew", "rain"]}}
        answer = httpx.post(
            f"{service.address}/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call},
            headers={**TRACEPARENT, "accept": "application/json, text/event-stream"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert service.stop(signal.SIGTERM) == 0
    in_trace = {span.name for span in receiver.spans if span.trace_id.hex() == TRACE}
    assert {"POST /mcp", "Reranker.rank", "CrossEncoderModel.score"} <= in_trace


@pytest.mark.slow
def test_serve_exports_by_otlp_and_flushes_at_the_end(
    tmp_path: Path, cross_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        # Longer than the test: what arrives was flushed.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        command = ["-c", "from rerank_integrations.cli import main; main()", "serve", "--port", "0"]
        service = ServiceProcess([*command, "--reranker", f"ce={cross_encoder_dir}"])
        body = {"query": "net profit", "documents": ["the net profit grew", "the river rose"], "top_n": 1}
        answer = httpx.post(f"{service.address}/v1/rerank", json=body, headers=TRACEPARENT, timeout=60)
        assert answer.status_code == 200
        assert service.stop(signal.SIGTERM) == 0
    (request,) = receiver.named("POST /v1/rerank")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    shown = plain(request.attributes)
    assert shown["http.request.method"] == "POST"
    assert shown["http.route"] == "/v1/rerank"
    assert shown["http.response.status_code"] == 200
    in_trace = [span for span in receiver.spans if span.trace_id.hex() == TRACE]
    assert {span.name for span in in_trace} == {
        "POST /v1/rerank",
        "queue rerank ce",
        "batch rerank ce",
        "Reranker.rank",
        "CrossEncoderModel.score",
    }
    (reranked,) = [span for span in in_trace if span.name == "Reranker.rank"]
    ranked = plain(reranked.attributes)
    assert ranked["openinference.span.kind"] == "RERANKER"
    assert ranked["reranker.model_name"] == str(cross_encoder_dir)
    best = answer.json()["results"][0]
    assert ranked["reranker.output_documents.0.document.content"] == body["documents"][best["index"]]
    (scored,) = [span for span in in_trace if span.name == "CrossEncoderModel.score"]
    assert scored.parent_span_id == reranked.span_id
    resource = receiver.resources[0]
    assert resource["service.name"] == "rerank-integrations"
    assert resource["deployment.environment.name"] == "test"
    (line,) = [line for line in service.log if line.get("route") == "/v1/rerank"]
    assert line["trace_id"] == TRACE
    assert service.other == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "{address}", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "{address}", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["no variable", "disabled", "no exporter of traces"],
)
def test_serve_exports_nothing_unless_it_is_configured(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with otlp_receiver() as receiver:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(address=receiver.address))
        service = ServiceProcess(["-c", SERVE])
        body = {"query": "light", "model": "words", "documents": ["light"]}
        assert httpx.post(f"{service.address}/v1/rerank", json=body, timeout=60).status_code == 200
        assert service.stop(signal.SIGTERM) == 0
    assert receiver.spans == []
    assert not any("trace_id" in line for line in service.log)


@pytest.mark.slow
def test_serve_names_its_service_and_exporter_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.address}/v1/traces")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my search")
        service = ServiceProcess(["-c", SERVE])
        httpx.get(f"{service.address}/v1/models", timeout=60)
        assert service.stop(signal.SIGTERM) == 0
    assert [span.name for span in receiver.spans] == ["GET /v1/models"]
    assert receiver.resources[0]["service.name"] == "my search"


@pytest.mark.slow
def test_serve_without_the_extra_says_so_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    service = ServiceProcess(["-c", without("openinference") + SERVE])
    assert httpx.get(f"{service.address}/v1/models", timeout=60).status_code == 200
    assert service.stop(signal.SIGTERM) == 0
    (line,) = [line for line in service.log if line["level"] == "WARNING"]
    assert "pip install 'rerank-integrations[telemetry]'" in line["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "carrier-pigeon"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
    ids=["exporter", "protocol"],
)
def test_an_exporter_that_there_is_not_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, env=child_env(), check=False)
    assert done.returncode != 0
    assert repr(value) in done.stderr


@pytest.mark.slow
def test_an_unreachable_collector_stops_neither_answers_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    service = ServiceProcess(["-c", SERVE])
    assert httpx.get(f"{service.address}/v1/models", timeout=60).status_code == 200
    assert service.stop(signal.SIGTERM) == 0
