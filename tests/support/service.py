"""A running service for tests: on a real port in a thread, or in a process of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from toy import Floats, ToyEncoder, child_env

from rerank_integrations import ColBERTIndex, Passage
from rerank_integrations.core.concurrency.cancel import GivenUpError, check_wanted
from rerank_integrations.server import ServerSettings, create_app
from rerank_integrations.server.connections import uvicorn_config

PASSAGES = [
    Passage("solar", "solar panels make electricity from light", {"year": 2024}),
    Passage("river", "the river rose after the rain", {"year": 2023}),
    Passage("zip", "a zip file is read without extracting it", {"year": 2022}),
    Passage("light", "light travels faster than sound", {"year": 2024}),
]


class WordScorer:
    """Scorer by the share of a text's words that stand in the query; it records its queries."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.queries.append(query)
        words = set(query.split())
        return [len(words & set(text.split())) / (1 + len(text.split())) for text in texts]


class LetterEncoder:
    """Bi-encoder whose vectors count letters."""

    def encode(self, texts: list[str]) -> list[Floats]:
        return [self.encode_query(text) for text in texts]

    def encode_query(self, text: str) -> Floats:
        counts = np.array([[text.lower().count(letter) for letter in string.ascii_lowercase]], dtype=np.float32)
        return counts / max(1.0, float(np.linalg.norm(counts)))


class GatedScorer(WordScorer):
    """Scorer that computes until `gate` is set, and records the queries whose computing was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.stopped: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        scores = super().score(query, texts)
        try:
            while not self.gate.wait(0.01):
                check_wanted()
        except GivenUpError:
            self.stopped.append(query)
            raise
        return scores


def eventually(condition: Any) -> None:
    """Wait until `condition()` is true, for a long time."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free port of the loopback address; yield its address."""
    server = uvicorn.Server(uvicorn_config(app, port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def toy_index(path: Path | None = None) -> ColBERTIndex:
    index = ColBERTIndex.create(path, ToyEncoder())
    index.upsert(PASSAGES, show_progress=False)
    return index


def serve_in_process(path: str, gate: str | None = None) -> None:
    """Serve the index at `path`, writable, until a signal comes; the log names the port.

    With the path of a `gate`, the reranker waits until that file exists, and the service drains until a second signal.
    """
    from rerank_integrations.server import serve
    from rerank_integrations.server.logs import log_as_json

    log_as_json()
    index = ColBERTIndex.open_or_create(path, ToyEncoder())
    scorer = WordScorer() if gate is None else FileGatedScorer(Path(gate))
    settings = ServerSettings(writable=True, drain_seconds=0 if gate is None else 3600, warm_up=False)
    serve(create_app({"toy": index}, {"words": scorer}, settings), port=0)


class FileGatedScorer(WordScorer):
    """Scorer that waits for a file."""

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self._gate = gate

    def score(self, query: str, texts: list[str]) -> list[float]:
        eventually(self._gate.exists)
        return super().score(query, texts)


class ServiceProcess:
    """A service in a process of its own, with its address and the lines of its log."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stderr=subprocess.PIPE, text=True, env=child_env(), bufsize=1
        )
        self.log: list[dict[str, Any]] = []
        self.other: list[str] = []
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()
        try:
            eventually(lambda: self._address() or self.process.poll() is not None)
            self.address = self._address() or ""
            eventually(lambda: self._is_ready() or self.process.poll() is not None)
            assert self.process.poll() is None, (self.log, self.other)
        except BaseException:
            self.process.kill()
            raise

    @classmethod
    def of_toy(cls, path: Path, gate: Path | None = None) -> ServiceProcess:
        arguments = (str(path), None if gate is None else str(gate))
        return cls(["-c", f"import service; service.serve_in_process(*{arguments!r})"])

    def stop(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait()
        self.reading.join()
        return code

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
            return httpx.get(f"{self.address}/ready", timeout=60).status_code == 200
        return False

    def _address(self) -> str | None:
        for line in self.log:
            if line["message"].startswith("Uvicorn running on "):
                return str(line["message"].split()[3])
        return None

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))
            else:
                self.other.append(line)


def send_raw(address: str, data: bytes, *, then_wait: bool = True) -> bytes:
    """Send bytes over a connection and return what comes back until the other side closes it."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        received = b""
        if then_wait:
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
        return received
