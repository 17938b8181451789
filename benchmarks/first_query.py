"""The first query of a compressed index: time to compile or load its loops, and the stall of the event loop.

    python benchmarks/first_query.py [--quick]

Numba's cache is a new folder, so that all is compiled. One process builds the index; a second one, with an empty cache,
has the loops compiled, and its child's processor time is taken; a third one finds them compiled. Each has its model
loaded before it searches, through LangChain's retriever. The index is of the starter model over short texts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever

PASSAGES = 4200
LATER = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one start with a filled cache instead of five")
    parser.add_argument("--searching", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.searching:
        print(json.dumps(asyncio.run(searched(Path(options.searching)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        with ColBERTIndex.create(path, ColBERTModel("starter")) as index:
            index.upsert((f"text number {number} of some thousands" for number in range(PASSAGES)), show_progress=False)
        empty = in_a_process(path, Path(folder) / "numba")
        filled = [in_a_process(path, Path(folder) / "numba") for _ in range(1 if options.quick else 5)]
    print(f"empty cache:  first search {empty['first']:.2f} s, a later one {1e3 * empty['later']:.1f} ms")
    for run in filled:
        print(f"filled cache: first search {run['first']:.2f} s, a later one {1e3 * run['later']:.1f} ms")
    figures = {
        "compile_cpu_s": empty["compiling"],
        "first_less_later_s": max(run["first"] - run["later"] for run in filled),
        "longest_gap_empty_s": empty["gap"],
        "longest_gap_filled_s": max(run["gap"] for run in filled),
    }
    print(*(f"{name}={value:.3f}" for name, value in figures.items()))


def in_a_process(path: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--searching", str(path)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


async def searched(path: Path) -> dict[str, float]:
    with ColBERTIndex.open(path, read_only=True) as index:
        index.model.encode_queries(["a query"])
        retriever = ColBERTRetriever(index=index)
        gaps: list[float] = []
        ticking = asyncio.create_task(tick(gaps))
        await asyncio.sleep(0.1)
        gaps.clear()
        first = await timed(retriever)
        gap = max(gaps)
        ticking.cancel()
        later = sorted([await timed(retriever) for _ in range(LATER)])[LATER // 2]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"first": first, "later": later, "gap": gap, "compiling": children.ru_utime + children.ru_stime}


async def timed(retriever: ColBERTRetriever) -> float:
    start = time.perf_counter()
    await retriever.ainvoke("text number 7")
    return time.perf_counter() - start


async def tick(gaps: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


if __name__ == "__main__":
    main()
