"""A server of tools on the standard streams for tests, with an encoder that prints and can be made to wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service import WordScorer, eventually
from toy import Floats, ToyEncoder, child_env

from rerank_integrations import ColBERTIndex


class LoudEncoder(ToyEncoder):
    """Encoder that writes to the standard output by every way there is."""

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        print("printed by the encoder")
        (sys.__stdout__ or sys.stdout).write("written to the first standard output\n")
        os.write(1, b"written to the descriptor\n")
        subprocess.run(["echo", "written by a child process"], check=True)
        # A child that reads must not take the client's messages.
        assert subprocess.run(["cat"], capture_output=True, check=True).stdout == b""
        return super().encode_queries(texts)


class WaitingEncoder(ToyEncoder):
    """Encoder that says in a file that it has begun to encode documents, and waits for another file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        (self._folder / "begun").touch()
        eventually((self._folder / "gate").exists)
        return super().encode_documents(texts, show_progress)


def serve(path: str, folder: str | None = None) -> None:
    """Serve the index at `path`, writable; writes wait for the file ``gate`` in `folder`."""
    from rerank_integrations.mcp import serve_stdio
    from rerank_integrations.server import ServerSettings
    from rerank_integrations.server.logs import log_as_json

    log_as_json()
    encoder = LoudEncoder() if folder is None else WaitingEncoder(Path(folder))
    index = ColBERTIndex.open(path, encoder)
    serve_stdio({"toy": index}, {"words": WordScorer()}, ServerSettings(writable=True, warm_up=False), about="notes")


def command(path: Path, folder: Path | None = None) -> list[str]:
    """Return the command that serves the index at `path`."""
    arguments = (str(path), None if folder is None else str(folder))
    return [sys.executable, "-c", f"import agent_server; agent_server.serve(*{arguments!r})"]


class RawClient:
    """A client that speaks the protocol by hand, to see every byte of the answers."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_env()
        )
        self._number = 0
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        self.information = self.request("initialize", hello)["result"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def begin(self, method: str, parameters: Mapping[str, Any]) -> int:
        self._number += 1
        self.send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters})
        return self._number

    def call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self.request("tools/call", {"name": name, "arguments": arguments})["result"]
        return result

    def request(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        number = self.begin(method, parameters)
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer["id"] == number, answer
        return answer

    def end(self) -> tuple[int, bytes, bytes]:
        """Close the input; return the exit status and what else came on the output and the error stream."""
        output, errors = self.process.communicate()
        return self.process.returncode, output, errors
