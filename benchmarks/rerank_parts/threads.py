"""Reranking with one component in 32 threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from llama_index.core.schema import QueryBundle
from rich.table import Table

from rerank_integrations.llama_index import ColBERTRerank, CrossEncoderRerank
from rerank_parts.bench import Bench, K
from rerank_parts.data import CandidateQuery
from rerank_parts.quality import nodes

THREADS = 32

Answer: TypeAlias = list[tuple[str, float]]


def threads(bench: Bench) -> None:
    """Compare ids and scores with those of the same calls one after the other, to the last digit.

    Each call scores the candidates of one query, so that its batches are the same in both. All queries go through the
    ColBERT once before, untimed; the cross-encoder keeps nothing that a second time could use.
    """
    whole = bench.queries_with_candidates(bench.sizes.threads)
    few = [query.first(bench.sizes.threads_candidates) for query in whole[:THREADS]]
    colbert = ColBERTRerank(index=bench.index(4), top_n=K)
    title = f"threads: one component, {THREADS} threads beside one"
    headings = ("component", "queries", "candidates", "queries a second: 1", str(THREADS), "identical")
    table = Table(*headings, title=title)
    for component, queries in ((colbert, whole), (CrossEncoderRerank(model=bench.cross_encoder, top_n=K), few)):
        name = type(component).__name__
        bench.tell(f"threads: {name}, {len(queries)} queries")
        call = _asking(component)
        for query in queries if component is colbert else queries[:1]:
            call(query)
        serial_s, serial = _timed(lambda call=call, queries=queries: [call(query) for query in queries])
        threaded_s, threaded = _timed(lambda call=call, queries=queries: _threaded(call, queries))
        rates = [len(queries) / seconds for seconds in (serial_s, threaded_s)]
        depth, identical = len(queries[0].candidates), serial == threaded
        table.add_row(name, str(len(queries)), str(depth), *(f"{rate:.2f}" for rate in rates), str(identical))
        bench.note(f"threads_{name}_per_s_1", rates[0])
        bench.note(f"threads_{name}_per_s_{THREADS}", rates[1])
        bench.note(f"threads_{name}_identical", identical)
        bench.note(f"threads_{name}_queries", len(queries))
        if not identical:
            bench.failures.append(f"{name}: answers of {THREADS} threads differ from the serial ones")
    bench.show(table)


def _asking(component: Any) -> Callable[[CandidateQuery], Answer]:
    def call(query: CandidateQuery) -> Answer:
        ranked = component.postprocess_nodes(nodes(query), QueryBundle(query.text))
        return [(node.node.node_id, node.score) for node in ranked]

    return call


def _threaded(call: Callable[[CandidateQuery], Answer], queries: Sequence[CandidateQuery]) -> list[Answer]:
    with ThreadPoolExecutor(THREADS) as workers:
        return list(workers.map(call, queries))


def _timed(work: Callable[[], list[Answer]]) -> tuple[float, list[Answer]]:
    start = time.perf_counter()
    answers = work()
    return time.perf_counter() - start, answers
