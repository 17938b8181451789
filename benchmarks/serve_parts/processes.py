"""The processes beside the benchmark: the service and the load generator, with their processor time and memory."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMAND = "from rerank_integrations.cli import main; main()"
_TICKS = os.sysconf("SC_CLK_TCK")


class Service:
    """`rerank-integrations serve` of one index ``docs`` and the starter cross-encoder, with settings."""

    def __init__(self, path: Path, **settings: object) -> None:
        environment = {f"RERANK_INTEGRATIONS_SERVER_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, "serve", f"docs={path}", "--reranker", "starter", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        # A benchmark that is ended early leaves no service behind.
        atexit.register(self.process.kill)
        assert self.process.stderr is not None
        self.errors: list[str] = []
        for line in self.process.stderr:
            if "Uvicorn running on" in line:
                self.address = json.loads(line)["message"].split()[3]
                break
            self.errors.append(line)
        else:
            raise SystemExit(f"the service did not start: {''.join(self.errors)[-2000:]}")
        # The rest of the log is read all the time, so that the pipe never fills; errors and warnings are remembered.
        self.errors.clear()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        while not self._is_ready():
            time.sleep(0.1)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if '"level": "INFO"' not in line:
                self.errors.append(line)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"the service has ended: {''.join(self.errors)[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.address}/ready", timeout=60) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def cpu_seconds(self) -> float:
        """Return the processor time that the service has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def megabytes(self) -> dict[str, float]:
        """Return the resident memory, its proportional share, and what of it is anonymous."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text("ascii")
        return {name: int(text.partition(f"\n{name}:")[2].split()[0]) / 1024 for name in ("Rss", "Pss", "Anonymous")}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end of the process and return its exit status."""
        self.process.send_signal(number)
        status = self.process.wait()
        self._reader.join()
        return status


@dataclass(frozen=True)
class Run:
    """What came of a number of requests: seconds of each and of all, answers, the generator's processor time."""

    seconds: list[float]
    answers: list[Any]
    total: float
    client_cpu: float = 0.0
    service_cpu: float = 0.0


class Generator:
    """The load generator in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("generator.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, service: Service, requests: Sequence[bytes], callers: int) -> Run:
        """Send `requests`, `callers` at a time, and return their answers, parsed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "address": service.address,
            "requests": [request.decode("latin-1") for request in requests],
            "callers": callers,
        }
        line = json.dumps(job) + "\n"
        before = service.cpu_seconds()
        self._process.stdin.write(line)
        self._process.stdin.flush()
        result = json.loads(self._process.stdout.readline())
        after = service.cpu_seconds()
        wrong = [answer for answer in result["answers"] if answer[1] != 200]
        if wrong:
            raise SystemExit(f"the service answered {wrong[0][1]}: {wrong[0][2][:500]}")
        return Run(
            seconds=[answer[0] for answer in result["answers"]],
            answers=[json.loads(answer[2]) for answer in result["answers"]],
            total=result["total"],
            client_cpu=result["cpu"],
            service_cpu=after - before,
        )

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
