"""Throughput and latency of the service beside the same work by the library in this process, in alternate rounds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serve_parts.http import request_bytes
from serve_parts.processes import Generator, Run, Service
from serve_parts.work import Ranking, Request, Work, is_right

CALLERS = (1, 16, 64)
SYSTEMS = ("library", "library, one call", "service", "service, no batches")


@dataclass
class Load:
    """What came of all rounds of a system: seconds of each request and of all, wrong answers, processor time."""

    seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    wrong: int = 0
    client_cpu: float = 0.0
    service_cpu: float = 0.0

    def add(self, run: Run, rankings: Sequence[Ranking], expected: Sequence[Ranking]) -> None:
        """Add a round."""
        self.seconds += run.seconds
        self.total += run.total
        self.client_cpu += run.client_cpu
        self.service_cpu += run.service_cpu
        self.wrong += sum(not is_right(*pair) for pair in zip(rankings, expected, strict=True))

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return len(self.seconds) / self.total

    def milliseconds(self, percentile: float) -> float:
        """Return a percentile of the time that a caller waited."""
        return float(np.percentile(self.seconds, percentile)) * 1000


def by_threads(work: Work, requests: Sequence[Request], callers: int) -> Run:
    """Call the library from `callers` threads, each of which waits for its answer."""
    answers: list[Ranking] = [[] for _ in requests]
    seconds = [0.0] * len(requests)
    waiting = iter(range(len(requests)))
    lock = threading.Lock()

    def numbers() -> Iterator[int]:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            yield number

    def caller() -> None:
        for number in numbers():
            start = time.perf_counter()
            answers[number] = work.call(requests[number])
            seconds[number] = time.perf_counter() - start

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run(seconds, answers, time.perf_counter() - start)


def by_common_calls(work: Work, requests: Sequence[Request], callers: int) -> Run:
    """Give the library the requests of `callers` callers in one call, the most that it can make of them."""
    answers: list[Ranking] = []
    seconds: list[float] = []
    start = time.perf_counter()
    for first in range(0, len(requests), callers):
        group = requests[first : first + callers]
        begun = time.perf_counter()
        answers += work.call_many(group)
        seconds += [time.perf_counter() - begun] * len(group)
    return Run(seconds, answers, time.perf_counter() - start)


class Comparison:
    """The four systems, on the same requests, in alternate rounds so that other load of the machine meets all."""

    def __init__(self, path: Path, works: Sequence[Work], requests: Sequence[Request], rounds: int) -> None:
        self._works, self._requests, self._rounds = works, requests, rounds
        self._expected = {work.name: [work.call(request) for request in requests] for work in works}
        self._generator = Generator()
        self._services = {
            "service": Service(path),
            "service, no batches": Service(path, max_batch_texts=1),
        }
        self.loads = {
            (work.name, callers, system): Load() for work in works for callers in CALLERS for system in SYSTEMS
        }

    def measure(self) -> None:
        """Warm everything up, then measure."""
        for work in self._works:
            for callers in CALLERS:
                for number in range(-1, self._rounds):
                    for system in SYSTEMS:
                        self._round(work, callers, system, warming=number < 0)

    def _round(self, work: Work, callers: int, system: str, *, warming: bool) -> None:
        # One caller makes a quarter of the requests, and a warm-up makes few.
        count = len(self._requests) if callers > 1 else max(1, len(self._requests) // 4)
        count = min(count, callers) if warming else count
        requests, expected = self._requests[:count], self._expected[work.name][:count]
        if system == "library":
            run = by_threads(work, requests, callers)
            rankings = run.answers
        elif system == "library, one call":
            run = by_common_calls(work, requests, callers)
            rankings = run.answers
        else:
            payloads = [work.http(request) for request in requests]
            run = self._generator.run(self._services[system], payloads, callers)
            rankings = [work.read(answer) for answer in run.answers]
        if not warming:
            self.loads[work.name, callers, system].add(run, rankings, expected)

    def floor_milliseconds(self) -> float:
        """Return the median time of a request that needs no model: HTTP, routing and JSON alone."""
        requests = [request_bytes("GET", "/v1/models")] * 200
        run = self._generator.run(self._services["service"], requests, 1)
        return float(np.median(run.seconds)) * 1000

    def close(self) -> None:
        """End the processes."""
        self._generator.close()
        for service in self._services.values():
            service.stop()


def table(comparison: Comparison) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [
        "| work | callers | library, threads | library, one call | service | p50, p99 ms | library's p50, p99 ms | "
        "service to library | without batches |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(key[0] for key in comparison.loads):
        for callers in CALLERS:
            library, at_once, service, alone = (comparison.loads[name, callers, system] for system in SYSTEMS)
            lines.append(
                f"| {name} | {callers} | {library.per_second:.1f} | {at_once.per_second:.1f} | "
                f"{service.per_second:.1f} | {service.milliseconds(50):.0f}, {service.milliseconds(99):.0f} | "
                f"{library.milliseconds(50):.0f}, {library.milliseconds(99):.0f} | "
                f"{service.per_second / library.per_second:.2f} | {alone.per_second / library.per_second:.2f} |"
            )
    return lines


def figures(comparison: Comparison) -> dict[str, float]:
    """Return the figures by name: of the service, and its ratios to the library of the same run."""
    named: dict[str, float] = {}
    for name in dict.fromkeys(key[0] for key in comparison.loads):
        for callers in CALLERS:
            library, at_once, service, alone = (comparison.loads[name, callers, system] for system in SYSTEMS)
            start = f"{name}_{callers}"
            named[f"{start}_per_s"] = service.per_second
            named[f"{start}_p50_ms"] = service.milliseconds(50)
            named[f"{start}_p99_ms"] = service.milliseconds(99)
            named[f"{start}_to_library"] = service.per_second / library.per_second
            named[f"{start}_to_one_call"] = service.per_second / at_once.per_second
            named[f"{start}_to_no_batches"] = service.per_second / alone.per_second
            named[f"{start}_p99_to_library"] = service.milliseconds(99) / library.milliseconds(99)
            named[f"{start}_client_cpu_share"] = service.client_cpu / (service.client_cpu + service.service_cpu)
    return named


def compare(path: Path, works: Sequence[Work], requests: Sequence[Request], rounds: int) -> None:
    """Print a table and a line of figures.

    Raises
    ------
    SystemExit
        If an answer was wrong.
    """
    comparison = Comparison(path, works, requests, rounds)
    try:
        comparison.measure()
        floor = comparison.floor_milliseconds()
    finally:
        comparison.close()
    print("\n".join(table(comparison)))
    for (name, callers, system), load in comparison.loads.items():
        print(
            f"{name} {callers:3} callers, {system:20}: {len(load.seconds)} requests, {load.per_second:7.1f}/s, "
            f"p50 {load.milliseconds(50):7.1f} ms, p99 {load.milliseconds(99):7.1f} ms, {load.wrong} wrong",
            file=sys.stderr,
        )
    wrong = sum(load.wrong for load in comparison.loads.values())
    named = {**figures(comparison), "http_floor_ms": floor}
    print(" ".join(f"{name}={value:.2f}" for name, value in named.items()) + f" wrong={wrong}")
    if wrong:
        raise SystemExit("some answers differ from the library's")
