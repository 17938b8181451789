"""Reranking services on the loopback address: real HTTP servers that speak the interfaces of the known ones."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WordScorer:
    """Scorer by the share of a text's words that stand in the query."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        words = set(query.split())
        return [len(words & set(text.split())) / (1 + len(text.split())) for text in texts]


@dataclass
class Answer:
    """An answer that a service gives in place of scores."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """A request as the service received it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class RerankingService:
    """A running service; it answers with `answers` first, then with `always` if there is one, else with scores.

    A request waits for `gate`. `most_at_once` counts the requests that waited or were answered at the same time.
    """

    address: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    always: Answer | None = None
    requests: list[Request] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0
    connections: set[Any] = field(default_factory=set)
    closed: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: Request) -> Answer:
        with self.lock:
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            planned = self.answers.popleft() if self.answers else self.always
        self.gate.wait(60)
        with self.lock:
            self.at_once -= 1
        return planned or Answer(body=scores_in_shape(request))


def scores_in_shape(request: Request) -> Any:
    """Return what the service of the request's path answers: the best first, as services do."""
    body = request.body
    if request.path.endswith("/score"):
        query, texts = body["text_1"], body["text_2"]
    elif "texts" in body:
        query, texts = body["query"], body["texts"]
    else:
        query, texts = body["query"], body["documents"]
    ranked = sorted(enumerate(WordScorer().score(query, texts)), key=lambda item: -item[1])
    if request.path.endswith("/score"):
        return {
            "object": "list",
            "data": [{"index": index, "object": "score", "score": score} for index, score in ranked],
        }
    if "texts" in body:
        factor = 10.0 if body["raw_scores"] else 1.0
        return [{"index": index, "score": factor * score} for index, score in ranked]
    rows = [{"index": index, "relevance_score": score} for index, score in ranked]
    return {"id": "an id", "results": rows[: body["top_n"]], "meta": {"billed_units": {"search_units": 1}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: RerankingService

    def setup(self) -> None:
        super().setup()
        self.service.connections.add(self.client_address)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.service.closed.set()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.service.answer(Request(self.path, headers, body))
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        with contextlib.suppress(OSError):
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._sockets: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        # A thread would go on to answer a connection that its client has kept open.
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def reranking_service() -> Iterator[RerankingService]:
    """Run a service on a free port of the loopback address."""
    service = RerankingService()
    service.gate.set()
    handler = type("Handler", (_Handler,), {"service": service})
    with _Server(("127.0.0.1", 0), handler) as server:
        service.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield service
        finally:
            service.gate.set()
            server.shutdown()
            thread.join()
