"""The HTTP service under load, beside the library called in this process.

    python benchmarks/serve.py            # throughput and latency at 1, 16 and 64 callers
    python benchmarks/serve.py --quick    # the same with few requests
    python benchmarks/serve.py --minutes 10   # mixed load with restarts: no wrong answer, memory flat

Each request reranks documents of the standard library's docstrings by the starter cross-encoder. The service runs in a
process of its own on this machine's loopback address, once with common batches and once without. Answers are compared
with the library's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage
from rerank_integrations.demo.docstrings import standard_library_passages

CALLERS = (1, 16, 64)
DOCUMENTS = 8
WORDS = 40
# Batches of other sizes sum in another order.
TOLERANCE = 1e-3
K = 5
# Words that no docstring has, so that passages which come and go never are among the best.
STRANGE = "qzxv wvkj"
_COMMAND = "from rerank_integrations.cli import main; main()"


@dataclass(frozen=True)
class Request:
    """A query and the documents to rank."""

    query: str
    documents: tuple[str, ...]


def requests_from(passages: Sequence[Passage], count: int) -> list[Request]:
    """Return requests, each with the first words of a passage as the query, and that passage among the documents."""
    drawn = random.Random(1)
    texts = [passage.text.split() for passage in passages]
    return [
        Request(
            " ".join(chosen[:12]),
            tuple(" ".join(words[:WORDS]) for words in (chosen, *drawn.sample(texts, DOCUMENTS - 1))),
        )
        for chosen in drawn.sample(texts, count)
    ]


class Service:
    """`rerank-integrations serve` in a process of its own."""

    def __init__(self, path: Path, **settings: object) -> None:
        environment = {f"RERANK_INTEGRATIONS_SERVER_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, "serve", f"docs={path}", "--reranker", "starter", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stderr is not None
        # The rest of the log is read by a thread, so that the pipe never fills.
        for line in self.process.stderr:
            if "Uvicorn running on" in line:
                self.address = json.loads(line)["message"].split()[3]
                break
        else:
            raise SystemExit("the service did not start")
        self.reader = ThreadPoolExecutor(1)
        self.reader.submit(lambda stream: [None for _ in stream], self.process.stderr)
        while httpx.get(f"{self.address}/ready", timeout=60).status_code != 200:
            time.sleep(0.1)

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait()
        self.reader.shutdown()


@dataclass
class Load:
    """Seconds of each request, of all together, and the largest error of a score."""

    seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    error: float = 0.0

    def per_second(self) -> float:
        return len(self.seconds) / self.total

    def milliseconds(self, percentile: float) -> float:
        return float(np.percentile(self.seconds, percentile)) * 1000


async def under_load(
    call: Callable[[Request], Awaitable[dict[int, float]]],
    requests: Sequence[Request],
    expected: dict[Request, list[float]],
    callers: int,
) -> Load:
    """Call for all `requests`, `callers` at a time, and compare the scores with `expected`."""
    load, waiting = Load(), iter(requests)

    async def caller() -> None:
        for request in waiting:
            start = time.perf_counter()
            scores = await call(request)
            load.seconds.append(time.perf_counter() - start)
            right = expected[request]
            load.error = max(load.error, *(abs(scores[place] - score) for place, score in enumerate(right)))

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    load.total = time.perf_counter() - start
    return load


async def by_http(
    address: str, requests: Sequence[Request], expected: dict[Request, list[float]], callers: int
) -> Load:
    limits = httpx.Limits(max_connections=callers)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:

        async def call(request: Request) -> dict[int, float]:
            body = {"model": "starter", "query": request.query, "documents": request.documents}
            response = await client.post("/v2/rerank", json=body)
            response.raise_for_status()
            return {item["index"]: item["relevance_score"] for item in response.json()["results"]}

        return await under_load(call, requests, expected, callers)


async def in_process(
    model: CrossEncoderModel, requests: Sequence[Request], expected: dict[Request, list[float]], callers: int
) -> Load:
    with ThreadPoolExecutor(callers) as pool:

        async def call(request: Request) -> dict[int, float]:
            work = asyncio.get_running_loop().run_in_executor(pool, model.score, request.query, list(request.documents))
            return dict(enumerate(await work))

        return await under_load(call, requests, expected, callers)


def compare(path: Path, requests: Sequence[Request], rounds: Sequence[int]) -> None:
    """Print throughput and latency of the library, the service, and the service without common batches."""
    model = CrossEncoderModel("starter")
    expected = {request: model.score(request.query, list(request.documents)) for request in requests}
    figures: dict[str, float] = {}
    worst = 0.0
    loads: dict[int, dict[str, Load]] = {}
    for callers in rounds:
        chosen = requests[: count(callers, requests)]
        loads[callers] = {"library": asyncio.run(in_process(model, chosen, expected, callers))}
    for name, settings in (("service", {}), ("alone", {"max_batch_texts": 1})):
        service = Service(path, **settings)
        for callers in rounds:
            chosen = requests[: count(callers, requests)]
            loads[callers][name] = asyncio.run(by_http(service.address, chosen, expected, callers))
        service.stop()
    for callers, by_name in loads.items():
        for name, load in by_name.items():
            worst = max(worst, load.error)
            print(
                f"{callers:3} callers, {name:8}: {load.per_second():6.1f} requests/s, "
                f"p50 {load.milliseconds(50):7.1f} ms, p99 {load.milliseconds(99):7.1f} ms, "
                f"{len(load.seconds)} requests",
                file=sys.stderr,
            )
        library, service_load, alone = (by_name[name] for name in ("library", "service", "alone"))
        figures[f"requests_per_s_{callers}"] = service_load.per_second()
        figures[f"p50_ms_{callers}"] = service_load.milliseconds(50)
        figures[f"p99_ms_{callers}"] = service_load.milliseconds(99)
        figures[f"throughput_to_library_{callers}"] = service_load.per_second() / library.per_second()
        figures[f"throughput_to_alone_{callers}"] = service_load.per_second() / alone.per_second()
        figures[f"p50_to_library_{callers}"] = service_load.milliseconds(50) / library.milliseconds(50)
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()) + f" largest_score_error={worst:.1g}")
    if worst > TOLERANCE:
        raise SystemExit("some scores differ from the library's")


def count(callers: int, requests: Sequence[Request]) -> int:
    """Return how many requests a number of callers makes; one caller makes a part of them."""
    return len(requests) if callers > 1 else max(1, len(requests) // 4)


def soak(path: Path, requests: Sequence[Request], minutes: float) -> None:
    """Print what came of mixed load, with a restart (alternately a signal and a kill) every quarter of the time."""
    model = CrossEncoderModel("starter")
    expected = {request: model.score(request.query, list(request.documents)) for request in requests}
    with ColBERTIndex.open(path, ColBERTModel("starter"), read_only=True) as index:
        hits = {request: [hit.id for hit in index.search(request.query, K)] for request in requests}
    counts = {"requests": 0, "refused": 0, "interrupted": 0, "wrong": 0}
    growths: list[float] = []
    quarters = 4
    for number in range(quarters):
        service = Service(path, writable="true")
        ends = time.monotonic() + 60 * minutes / quarters
        warm: list[float] = []

        def watch(service: Service = service, warm: list[float] = warm, ends: float = ends) -> None:
            # Memory grows to that of the largest batch first.
            if not warm and time.monotonic() > ends - 30 * minutes / quarters:
                warm.append(service.megabytes())

        stop = signal.SIGTERM if number % 2 == 0 else signal.SIGKILL
        asyncio.run(_mixed(service, requests, expected, hits, counts, ends, watch, stop))
        if warm and counts.get("last_megabytes"):
            growths.append(counts.pop("last_megabytes") / warm[0])
        service.stop() if service.process.poll() is None else None
    with ColBERTIndex.open(path, ColBERTModel("starter"), read_only=True) as index:
        index.verify()
    growth = max(growths, default=float("nan"))
    print(
        f"minutes={minutes:g} restarts={quarters - 1} "
        + " ".join(f"{name}={value}" for name, value in counts.items())
        + f" memory_growth_in_second_half={growth:.3f}"
    )
    if counts["wrong"]:
        raise SystemExit("some answers were wrong")


async def _mixed(
    service: Service,
    requests: Sequence[Request],
    expected: dict[Request, list[float]],
    hits: dict[Request, list[str]],
    counts: dict[str, Any],
    ends: float,
    watch: Callable[[], None],
    stop: int,
) -> None:
    stopping = False

    async def caller(client: httpx.AsyncClient, seed: int) -> None:
        drawn = random.Random(seed)
        while not stopping:
            request = drawn.choice(requests)
            try:
                right = await _one_call(client, drawn, request, expected[request], hits[request])
            except httpx.HTTPStatusError as error:
                counts["refused" if error.response.status_code in (429, 503) else "wrong"] += 1
            except httpx.HTTPError:
                counts["interrupted" if stopping else "wrong"] += 1
            else:
                counts["requests"] += 1
                counts["wrong"] += not right

    async with httpx.AsyncClient(base_url=service.address, timeout=120) as client:
        callers = [asyncio.create_task(caller(client, seed)) for seed in range(8)]
        while time.monotonic() < ends:
            await asyncio.sleep(0.2)
            watch()
        counts["last_megabytes"] = service.megabytes()
        stopping = True
        service.process.send_signal(stop)
        await asyncio.gather(*callers)


async def _one_call(
    client: httpx.AsyncClient, drawn: random.Random, request: Request, scores: list[float], ids: list[str]
) -> bool:
    """Make one of four kinds of request and return whether its answer is right."""
    kind = drawn.choice(["rerank", "rerank", "search", "search", "store", "read"])
    key = f"strange-{drawn.randrange(20)}"
    if kind == "rerank":
        response = await client.post("/v2/rerank", json={"query": request.query, "documents": request.documents})
        found = {item["index"]: item["relevance_score"] for item in response.raise_for_status().json()["results"]}
        return all(abs(found[place] - score) < TOLERANCE for place, score in enumerate(scores))
    if kind == "search":
        body = {"query": request.query, "k": K, "where": {"strange": {"$exists": False}}}
        response = await client.post("/v1/search", json=body)
        return [hit["id"] for hit in response.raise_for_status().json()["hits"]] == ids
    if kind == "store":
        passages = [{"id": key, "text": f"{STRANGE} {drawn.random()}", "metadata": {"strange": True}}]
        response = await client.put("/v1/passages", json={"passages": passages})
        return bool(response.raise_for_status().json()["ids"] == [key])
    response = await client.get("/v1/passages", params={"id": key})
    return all(item["text"].startswith(STRANGE) for item in response.raise_for_status().json()["passages"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 requests instead of 512")
    parser.add_argument(
        "--minutes", type=float, help="mixed load for so long, with restarts, instead of the comparison"
    )
    options = parser.parse_args()
    passages = list(itertools.islice(standard_library_passages(), 100 if options.quick or options.minutes else 400))
    requests = requests_from(passages, 24 if options.quick or options.minutes else 128)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; "
        f"{DOCUMENTS} documents per request",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        with ColBERTIndex.create(path, ColBERTModel("starter")) as index:
            index.upsert(passages, show_progress=False)
        if options.minutes:
            soak(path, requests, options.minutes)
        else:
            compare(path, requests if options.quick else requests * 4, CALLERS)


if __name__ == "__main__":
    main()
