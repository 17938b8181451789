"""fast-plaid on precomputed token vectors: build an index, search it, write times and results as JSON.

    PYTHON fast_plaid.py --vectors FOLDER --out FILE.json [--nbits 2] [--index FOLDER]

PYTHON is that of fast-plaid's own environment (``environments.py`` makes it); nothing but fast-plaid, torch and NumPy
is imported. FOLDER holds ``passages.npy`` (float16, one row a token), ``lengths.npy``, ``queries.npy`` (float32) and
``query_lengths.npy``. ``--index`` keeps the index in that folder, which must not exist; without it, it is thrown away.

Both halves go through ``fast_plaid.search.FastPlaid`` on the CPU: ``create`` with its defaults but for ``nbits``, and
``search`` with one query a call, with 2 probes and 256 full scores, then with its defaults (8 probes and 4,096).

Left out of all times: reading the vectors and opening the index. The warm-up is every query once, for 100 passages;
then every query is timed by itself, for 10. Build and search each have a process, whose peak memory is told: the
build's contains the given vectors.
"""

# ruff: noqa: E402  (the environment's variables are read when torch is imported)
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# No GPU, and the two cores. This file has the package's name, so its folder must not be searched for packages.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "2"
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np
import torch
from fast_plaid.search import FastPlaid

SETTINGS: dict[str, dict[str, int]] = {
    "n_ivf_probe=2 n_full_scores=256": {"n_ivf_probe": 2, "n_full_scores": 256},
    "defaults": {},
}
TOP, TIMED = 100, 10


def peak_mb() -> float:
    """Return the peak memory of this process; not ``ru_maxrss``, which a child inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def read(folder: Path, tokens: str, lengths: str) -> list[torch.Tensor]:
    rows = torch.from_numpy(np.load(folder / tokens))
    return list(rows.split(np.load(folder / lengths).tolist()))


def build(vectors: Path, index: Path, nbits: int) -> dict[str, Any]:
    passages = read(vectors, "passages.npy", "lengths.npy")
    index.mkdir(parents=True)
    start = time.perf_counter()
    with FastPlaid(index=str(index), device="cpu") as engine:
        engine.create(documents_embeddings=passages, nbits=nbits)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in index.rglob("*"))
    return {"build_s": seconds, "bytes": size, "build_peak_mb": peak_mb()}


def search(vectors: Path, index: Path) -> dict[str, Any]:
    queries = read(vectors, "queries.npy", "query_lengths.npy")
    engine = FastPlaid(index=str(index), device="cpu")
    results = []
    for name, setting in SETTINGS.items():

        def ask(query: torch.Tensor, k: int, setting: dict[str, int] = setting) -> list[tuple[int, float]]:
            return engine.search([query], top_k=k, show_progress=False, **setting)[0]

        rankings = [[passage for passage, _ in ask(query, TOP)] for query in queries]
        times = []
        for query in queries:
            start = time.perf_counter()
            ask(query, TIMED)
            times.append(1000 * (time.perf_counter() - start))
        p50, p95 = np.percentile(times, [50, 95]).tolist()
        results.append({"name": name, "p50_ms": p50, "p95_ms": p95, "top": rankings})
    return {"settings": [{**result, "search_peak_mb": peak_mb()} for result in results]}


def run(vectors: Path, index: Path, nbits: int) -> dict[str, Any]:
    """Build in this process and search in another one, whose peak memory excludes the build."""
    built = build(vectors, index, nbits)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "search.json"
        command = [sys.executable, __file__, "--vectors", vectors, "--index", index, "--out", output, "--search-only"]
        subprocess.run(command, check=True)
        engine = {"engine": "fast-plaid", "version": version("fast-plaid"), "torch": torch.__version__}
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
    with tempfile.TemporaryDirectory() as scratch:
        index = options.index or Path(scratch) / "index"
        report = search(options.vectors, index) if options.search_only else run(options.vectors, index, options.nbits)
    options.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
