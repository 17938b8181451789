"""What telemetry costs a reranking: off, on without a provider, and on with one that records.

    python benchmarks/telemetry.py

The scorer does nothing, so that what is measured is this package's own work per call on 10 candidates.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rerank_integrations import Candidate, PlainScorer, Reranker, telemetry


class Nothing:
    """Scorer without work."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [0.0] * len(texts)


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """Return the median processor time of a call, over rounds of 1,000."""
    rounds: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or not rounds:
        start = time.process_time()
        for _ in range(1000):
            call()
        rounds.append((time.process_time() - start) * 1000)
    return statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fraction of a second per row")
    seconds = 0.2 if parser.parse_args().quick else 5.0
    candidates = [Candidate(f"p{number}", "some text of a passage") for number in range(10)]
    reranker = Reranker(PlainScorer(Nothing()))
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def call() -> object:
        exporter.clear()
        return reranker.rank("a query", candidates)

    off = microseconds(call, seconds)
    telemetry.enable()
    idle = microseconds(call, seconds)
    telemetry.enable(provider)
    recorded = microseconds(call, seconds)
    telemetry.disable()
    again = microseconds(call, seconds)
    print("a reranking of 10 candidates by a scorer without work, microseconds of processor time")
    for name, value in (("off", off), ("on, no provider", idle), ("on, recorded", recorded), ("off again", again)):
        print(f"{name:<16} {value:8.1f}  {value / off:5.2f} x")


if __name__ == "__main__":
    main()
