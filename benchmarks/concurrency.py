"""One index and one model under 32 threads and 32 asynchronous calls: speed, equality, and stalls of the event loop.

    python benchmarks/concurrency.py [--quick]

The starter model over docstrings of the standard library. Every answer is compared with the serial one. A stall is the
time by which a task that sleeps a millisecond at a time wakes up too late. It is measured once while nothing else runs,
and once while 32 asynchronous searches of LangChain's retriever run beside an upsert on a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import torch

from rerank_integrations import ColBERTIndex, ColBERTModel, Hit, Passage
from rerank_integrations.demo.docstrings import standard_library_passages
from rerank_integrations.langchain import ColBERTRetriever

# Id and score of a hit.
Answer: TypeAlias = tuple[str | None, float]
WORKERS = 32
K = 10


def queries_from(passages: Sequence[Passage], count: int) -> list[str]:
    """Return the first words of passages spread over the corpus."""
    chosen = passages[:: max(1, len(passages) // count)][:count]
    return [" ".join(passage.text.split()[:12]) for passage in chosen]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def answers(hits: Sequence[Hit]) -> list[Answer]:
    return [(hit.id, hit.score) for hit in hits]


def threaded(index: ColBERTIndex, queries: Sequence[str]) -> list[list[Answer]]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda query: answers(index.search(query, K)), queries))


async def watched(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Run `work`; return the loop's longest stall meanwhile, in seconds, and the result."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - start - 0.001)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    answer = await work()
    await asyncio.sleep(0.01)
    watching.cancel()
    return worst, answer


async def search_beside_upsert(
    index: ColBERTIndex, queries: Sequence[str], new: Sequence[Passage]
) -> tuple[list[str], list[list[Answer]]]:
    """Run `queries` at once beside an upsert, whose passages the searches leave out."""
    retriever = ColBERTRetriever(index=index, k=K, filter={"new": {"$exists": False}})
    upserting = asyncio.create_task(asyncio.to_thread(index.upsert, new))
    results = await asyncio.gather(*(retriever.ainvoke(query) for query in queries))
    documents = [[(document.id, document.metadata["relevance_score"]) for document in hits] for hits in results]
    return await upserting, documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 passages instead of 1000")
    quick = parser.parse_args().quick
    passages = list(itertools.islice(standard_library_passages(), 300 if quick else 1000))
    queries = queries_from(passages, WORKERS if quick else 4 * WORKERS)
    new = [Passage(f"new-{number}", passage.text, {"new": True}) for number, passage in enumerate(passages[:100])]

    with ColBERTIndex.create(None, ColBERTModel("starter")) as index:
        build, _ = timed(lambda: index.upsert(passages, show_progress=False))
        index.search(queries[0], K)
        serial_seconds, serial = timed(lambda: [answers(index.search(query, K)) for query in queries])
        thread_seconds, by_threads = timed(lambda: threaded(index, queries))
        idle, _ = asyncio.run(watched(lambda: asyncio.sleep(1)))
        stall, (ids, by_tasks) = asyncio.run(watched(lambda: search_beside_upsert(index, queries[:WORKERS], new)))
        stats = index.stats()

    equal = by_threads == serial and by_tasks == serial[:WORKERS]
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads\n"
        f"{len(passages)} passages indexed in {build:.1f} s, {len(queries)} queries, then {len(ids)} passages upserted "
        f"beside {WORKERS} searches; {stats.tokens} tokens in the end",
        file=sys.stderr,
    )
    print(
        f"passages={len(passages)} queries={len(queries)} "
        f"queries_per_s_1_thread={len(queries) / serial_seconds:.1f} "
        f"queries_per_s_{WORKERS}_threads={len(queries) / thread_seconds:.1f} "
        f"equal_to_serial={equal} idle_stall_ms={idle * 1000:.1f} longest_stall_ms={stall * 1000:.1f}"
    )
    if not equal:
        raise SystemExit("some answers differ from the serial ones")


if __name__ == "__main__":
    main()
