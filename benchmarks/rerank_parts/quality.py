"""nDCG@10 and time of rerankers of LlamaIndex, ours and theirs, on BM25's best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from rich.table import Table

from rerank_integrations.evaluation import load_dataset
from rerank_integrations.evaluation.metrics import evaluate_run, means
from rerank_integrations.llama_index import ColBERTRerank, CrossEncoderRerank
from rerank_parts.bench import Bench, K, System, Taken
from rerank_parts.data import CandidateQuery, Pool, queries_of, queries_with_candidates
from rerank_parts.rivals import RivalAbsentError, colbert_rerank, sentence_transformer_rerank

_SETS = ("cranfield", "scifact")


def quality(bench: Bench) -> None:
    """Give every component the same nodes and weights, in turns; only its call is timed.

    Our ColBERT has no index here and keeps no vectors, so that it encodes all of them for each query, as theirs does.
    """
    systems = _components(bench)
    depth = bench.sizes.depth
    for name in _SETS:
        data = load_dataset(bench.data / "eval" / name)
        pool = Pool(data.passages)
        queries = queries_with_candidates(queries_of(bench.data, name), pool, bench.sizes.quality, depth)
        taken = bench.in_turns({"bm25": _bm25(pool, depth), **systems}, queries)
        title = f"quality: {name}, BM25's best {depth}, {len(queries)} queries; BM25's time is its search"
        table = Table("component", "nDCG@10", "ms a query", title=title)
        for system, times in taken.items():
            ndcg = _ndcg(data.qrels, queries, times)
            table.add_row(system, f"{ndcg:.3f}", f"{times.median_ms:.1f}")
            bench.note(f"quality_{name}_{system}_ndcg10", ndcg)
            bench.note(f"quality_{name}_{system}_ms", times.median_ms)
        bench.show(table)
        bench.note(f"quality_{name}_queries", len(queries))


def _components(bench: Bench) -> dict[str, System]:
    ours = ColBERTRerank(model=bench.colbert, top_n=K, cache_bytes=0)
    systems: dict[str, System] = {"our_ColBERTRerank": _component(ours)}
    try:
        theirs = colbert_rerank(bench.work / "colbert", K)
        systems["their_ColbertRerank"] = _without_gradients(_component(theirs))
    except RivalAbsentError as error:
        bench.tell(f"ColbertRerank is left out: {error}")
    reading = CrossEncoderRerank(model=bench.cross_encoder, top_n=K)
    systems["our_CrossEncoderRerank"] = _component(reading)
    their_reading = sentence_transformer_rerank(bench.work / "cross-encoder", K)
    systems["their_SentenceTransformerRerank"] = _component(their_reading)
    return systems


def _bm25(pool: Pool, depth: int) -> System:
    return lambda query: lambda: [passage.id for passage in pool.best(query.text, depth)][:K]


def _component(component: Any) -> System:
    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        # LlamaIndex's rerankers write scores into the nodes, so each gets nodes of its own.
        fresh_nodes = nodes(query)
        bundle = QueryBundle(query.text)
        return lambda: [ranked.node.node_id for ranked in component.postprocess_nodes(fresh_nodes, bundle)]

    return ready


def _without_gradients(system: System) -> System:
    """Wrap a call in `torch.no_grad`: ColbertRerank would store the data for gradients of all candidates."""

    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        return torch.no_grad()(system(query))

    return ready


def nodes(query: CandidateQuery) -> list[NodeWithScore]:
    """Return the candidates as nodes, which have the passages' ids and no metadata."""
    return [
        NodeWithScore(node=TextNode(id_=candidate.id, text=candidate.text), score=0.0) for candidate in query.candidates
    ]


def _ndcg(qrels: dict[str, dict[str, int]], queries: list[CandidateQuery], taken: Taken) -> float:
    run = {
        query.id: {key: float(-rank) for rank, key in enumerate(answer)}
        for query, answer in zip(queries, taken.answers, strict=True)
    }
    return means(evaluate_run({key: qrels[key] for key in run}, run))["nDCG@10"]
