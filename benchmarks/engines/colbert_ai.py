"""colbert-ai on precomputed token vectors: build an index, search it, write times and results as JSON.

    PYTHON colbert_ai.py --vectors FOLDER --out FILE.json [--nbits 2] [--index FOLDER]

PYTHON is that of colbert-ai's own environment (``environments.py`` makes it); nothing but colbert-ai, torch and NumPy
is imported. FOLDER holds ``passages.npy`` (float16, one row a token), ``lengths.npy``, ``queries.npy`` (float32) and
``query_lengths.npy``. ``--index`` keeps the index in that folder, which must not exist; without it, it is thrown away.

The index is built by colbert-ai's ``CollectionIndexer``, whole, with its defaults (sample, number of centroids, k-means
iterations, seeds) on the CPU; only its checkpoint is replaced, by one that hands out the given vectors. Its launcher,
which forks, is not used. Searching is ``IndexScorer.rank`` with the three settings that its ``Searcher`` picks for k up
to 10, up to 100 and beyond; they do not otherwise depend on k. A setting returns ``ndocs / 4`` passages at most, so
``ndocs=256`` gives 64. ``query_maxlen`` is that of the longest query, so that every query token takes part.

Left out of all times: reading the vectors, opening the index, and compiling its C++ (at first use in an environment,
before the build and the warm-up). The warm-up is every query once; then every query is timed by itself, and at last
all of them come from 1 and from 8 threads, for queries a second. Build and search each have a process, whose peak
memory is told: the build's contains the given vectors.
"""

# ruff: noqa: E402  (the environment's variables are read when torch is imported)
from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

EXTENSIONS = Path(sys.prefix) / "torch_extensions"
# No GPU, the two cores, and an extension folder and a ninja of this environment's own.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "2"
os.environ["TORCH_EXTENSIONS_DIR"] = str(EXTENSIONS)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

import colbert.indexing.collection_indexer as indexing
import faiss
import numpy as np
import torch
from colbert.infra import ColBERTConfig
from colbert.modeling.colbert import ColBERT
from colbert.search.index_storage import IndexScorer
from colbert.search.strided_tensor import StridedTensor

SETTINGS = ((1, 256, 0.5), (2, 1024, 0.45), (4, 4096, 0.4))
SEED = 12345  # the one that colbert-ai's launcher sets
TOP = 100
CALLERS = (1, 8)
SECONDS = 3.0


class GivenVectors:
    """Stand-in for the checkpoint: a passage is its number, and its encoding is read from the precomputed vectors."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.load(folder / "passages.npy", mmap_mode="r")
        self.lengths = np.load(folder / "lengths.npy").tolist()
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()

    def docFromText(self, passages: list[int], **_: Any) -> tuple[torch.Tensor, list[int]]:  # noqa: N802
        rows = [self.tokens[self.starts[at] : self.starts[at + 1]] for at in passages]
        return torch.from_numpy(np.concatenate(rows)).float(), [self.lengths[at] for at in passages]


def peak_mb() -> float:
    """Return the peak memory of this process; not ``ru_maxrss``, which a child inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def compile_extensions() -> None:
    """Compile and load the C++ parts, after removing the lock of a killed compilation, which would block forever."""
    for lock in EXTENSIONS.glob("*/lock"):
        lock.unlink()
    for part in (StridedTensor, IndexScorer, ColBERT):
        part.try_load_torch_extensions(False)


def build(vectors: Path, index: Path, nbits: int) -> dict[str, Any]:
    compile_extensions()
    encoder = GivenVectors(vectors)
    indexing.Checkpoint = lambda *_, **__: encoder
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    index.mkdir(parents=True)
    start = time.perf_counter()
    config = ColBERTConfig(index_path=str(index), nbits=nbits, dim=encoder.tokens.shape[1], rank=0, nranks=1, gpus=0)
    indexing.CollectionIndexer(config, list(range(len(encoder.lengths))), verbose=1).run([])
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in index.rglob("*"))
    return {"build_s": seconds, "bytes": size, "build_peak_mb": peak_mb()}


def read_queries(folder: Path) -> list[torch.Tensor]:
    tokens = torch.from_numpy(np.load(folder / "queries.npy"))
    lengths = np.load(folder / "query_lengths.npy").tolist()
    return [query[None] for query in tokens.split(lengths)]


def throughput(
    scorer: IndexScorer, config: ColBERTConfig, queries: list[torch.Tensor], callers: int, serial_s: float
) -> float:
    """Return queries per second from `callers` threads, measured for about as long as our index."""
    repeated = queries * math.ceil(SECONDS / serial_s)
    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        for _ in pool.map(lambda query: scorer.rank(config, query), repeated):
            pass
        return len(repeated) / (time.perf_counter() - start)


def search(vectors: Path, index: Path) -> dict[str, Any]:
    compile_extensions()
    queries = read_queries(vectors)
    longest = max(query.shape[1] for query in queries)
    scorer = IndexScorer(str(index), use_gpu=False)
    results = []
    for ncells, ndocs, threshold in SETTINGS:
        config = ColBERTConfig(
            ncells=ncells, ndocs=ndocs, centroid_score_threshold=threshold, query_maxlen=longest, gpus=0
        )
        rankings = [scorer.rank(config, query)[0][:TOP] for query in queries]
        times = []
        for query in queries:
            start = time.perf_counter()
            scorer.rank(config, query)
            times.append(1000 * (time.perf_counter() - start))
        p50, p95 = np.percentile(times, [50, 95]).tolist()
        result = {"name": f"ncells={ncells} ndocs={ndocs}", "p50_ms": p50, "p95_ms": p95, "top": rankings}
        per_s = {count: throughput(scorer, config, queries, count, sum(times) / 1000) for count in CALLERS}
        results.append({**result, "per_s": per_s})
    return {"settings": [{**result, "search_peak_mb": peak_mb()} for result in results]}


def run(vectors: Path, index: Path, nbits: int) -> dict[str, Any]:
    """Build in this process and search in another one, whose peak memory excludes the build."""
    built = build(vectors, index, nbits)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "search.json"
        command = [sys.executable, __file__, "--vectors", vectors, "--index", index, "--out", output, "--search-only"]
        subprocess.run(command, check=True)
        engine = {"engine": "colbert-ai", "version": version("colbert-ai"), "torch": torch.__version__}
        return {**engine, **built, **json.loads(output.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nbits", type=int, default=2)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--search-only", action="store_true", help="search the index that --index names")
    options = parser.parse_args()
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        index = options.index or Path(scratch) / "index"
        report = search(options.vectors, index) if options.search_only else run(options.vectors, index, options.nbits)
    options.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
