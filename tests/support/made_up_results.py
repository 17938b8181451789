"""Invented results, for tests of what is computed from results."""

from __future__ import annotations

from typing import Any

import numpy as np

from rerank_integrations.evaluation import Measured, Pipeline

QUERIES = 40
QRELS = {f"q{number}": {f"p{number}": 1} for number in range(QUERIES)}
DATA = {"name": "modules & <more>", "passages": 1234, "queries": QUERIES, "crc32": "0123abcd"}
ORIGIN = {
    "measured_at": "2030-01-02T03:04:05+00:00",
    "processor": "A Processor",
    "cores": 6,
    "memory_gb": 31.5,
    "gpus": [],
    "os": "An OS",
    "python": "3.12.1",
    "packages": {"torch": "9.9.9"},
    "command": "rerank-integrations evaluate 'a folder'",
}


def invented(pipeline: Pipeline, *, good: float, slow: float, seed: int = 0, **fields: Any) -> Measured:
    """Return a pipeline's result: the higher `good`, the higher the relevant passage; `slow` ms on average."""
    random = np.random.default_rng(seed)
    run = {}
    for query, judged in QRELS.items():
        found: list[str] = [f"other{number}" for number in range(20)]
        found.insert(int((1 - good) * 12 * random.random()), *judged)
        run[query] = found
    shares = {"encode": 0.2, "retrieve": 0.3, "rerank": 0.5}
    ms = {stage: (slow * share * random.uniform(0.7, 1.5, QUERIES)).tolist() for stage, share in shares.items()}
    made = {
        "data": DATA,
        "build_s": 2 * slow,
        "index_bytes": int(slow * 1e6),
        "peak_mb": 100 + slow,
        "per_s": {1: 1000 / slow, 8: 3000 / slow},
        "origin": ORIGIN,
    }
    return Measured(pipeline=pipeline.options(), run=run, ms=ms, **{**made, **fields})
