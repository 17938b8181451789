"""The index compared with colbert-ai and fast-plaid on the same vectors; its growth, filters and upserts.

    python benchmarks/index.py [--quick] [--data ../shared/data] [--cache FOLDER] [--only compare,growth,filters,adds]
        [--mean-cosine 0.9]

Vectors of real passages by the starter model, encoded once and kept under the cache folder (index_parts/data.py says
which). Encoding is in no time: our index gets a model that looks vectors up. Its times are those of the public
interface, the catalog and the hits' texts included; engines get vectors and give numbers. Every build and every
search runs in a process of its own, one after the other, after numba's functions (ours) or C++ (colbert-ai's) are
loaded. p50 and p95 are of 212 queries, each by itself for 10 hits, after all of them once as a warm-up. Recall is
against MaxSim in float32 over the float16 vectors. Peak memory is the process's; colbert-ai's and fast-plaid's builds
contain the given vectors. ``--quick`` takes a sample, and leaves fast-plaid out. ``--mean-cosine`` adds a constant
vector to all token vectors before normalising them, so that two passage tokens have this mean cosine: many recent
models have such vectors.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from engines.environments import CACHE
from index_parts import compare, scale
from index_parts.bench import FULL, QUICK, Bench
from index_parts.data import (
    Queries,
    added_texts,
    cached_corpus,
    common_length,
    mean_cosine,
    passage_texts,
    query_texts,
    with_common,
)

PARTS: dict[str, Callable[[Bench], None]] = {
    "compare": compare.compare,
    "growth": scale.growth,
    "filters": scale.filters,
    "adds": scale.adds,
}
FILES = ("eval/squad_dev", "eval/cranfield", "eval/scifact", "scale", "train/squad_train.jsonl.gz")


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = " ".join(f"{name} {installed(name)}" for name in ("numpy", "numba", "faiss-cpu"))
    return f"{cpu}, {os.cpu_count()} CPUs, load {load}, Python {platform.python_version()}, {versions}"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def prepared(data: Path, cache: Path, work: Path, quick: bool, parts: list[str], cosine: float | None) -> Bench:
    """Read the data that the parts need, and encode whatever is not in the cache."""
    from rerank_integrations import ColBERTModel

    sizes = QUICK if quick else FULL
    model = ColBERTModel("starter")
    texts = passage_texts(data, sizes.compared if parts == ["compare"] else sizes.largest)
    adding = "adds" in parts
    corpus = cached_corpus(texts + (added_texts(data) if adding else []), cache, model)
    questions = query_texts(data)
    vectors = [np.asarray(query, dtype=np.float32) for query in model.encode_queries(questions)]
    if cosine is not None:
        corpus = replace(corpus, common=common_length(corpus.tokens(0, 500), cosine))
        vectors = [with_common(query, corpus.common) for query in vectors] if corpus.common else vectors
    print(f"mean cosine of two passage tokens: {mean_cosine(corpus.tokens(0, 500)):.2f}", file=sys.stderr)
    return Bench(corpus, Queries(questions, vectors), sizes, quick, adding, cache, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--mean-cosine", type=float, help="of two passage tokens, by a constant vector added to all")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, joined by commas")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    absent = [name for name in FILES if not (options.data / name).exists()]
    if absent:
        print(f"not run: {options.data} holds no {', '.join(absent)}; --data names the folder that does")
        return
    print(machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="index-benchmark-") as work:
        bench = prepared(options.data, options.cache, Path(work), options.quick, parts, options.mean_cosine)
        for part in PARTS:
            if part in parts:
                PARTS[part](bench)
    bench.finish()


if __name__ == "__main__":
    main()
