"""ColBERT over candidates stored in an index, compared with encoding them again."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from rerank_integrations import Candidate, ColBERTScorer, Ranked, Reranker
from rerank_parts.bench import DEPTH, Bench, K, System
from rerank_parts.data import CandidateQuery

_FRESH = "encoded"


def stored(bench: Bench) -> None:
    """Measure first and later rankings of the same candidates from 4 and 2 bits, and from float16.

    ``first``: the scorer has not met the candidates (files may be in memory); ``again``: it has, for the same query.
    Both encode the query. The float16 index is of the candidates alone, since a larger one compresses itself.
    """
    queries = bench.queries_with_candidates(bench.sizes.stored)
    systems: dict[str, System] = {_FRESH: _fresh(bench)}
    for nbits in (4, 2):
        systems[f"{nbits}bit_first"] = _from_index(bench, nbits, met=False)
        systems[f"{nbits}bit_again"] = _from_index(bench, nbits, met=True)
    systems["float16_first"] = _from_float16(bench)
    taken = bench.in_turns(systems, queries)
    fresh = taken[_FRESH]
    tokens = sum(len(bench.vectors[candidate.text]) for query in queries for candidate in query.candidates) / len(
        queries
    )
    title = f"stored: {DEPTH} candidates of {tokens:.0f} vectors together, {len(queries)} queries of scifact"
    table = Table("vectors", "ms a query", "times as fast", f"top {K} the same", "at the same place", title=title)
    for name, times in taken.items():
        ratio, overlap, places = fresh.median_ms / times.median_ms, times.overlap(fresh), times.same_places(fresh)
        table.add_row(name, f"{times.median_ms:.1f}", f"{ratio:.1f}", f"{overlap:.3f}", f"{places:.3f}")
        bench.note(f"stored_{name}_ms", times.median_ms)
        if name != _FRESH:
            bench.note(f"stored_{name}_ratio", ratio)
            bench.note(f"stored_{name}_overlap10", overlap)
            bench.note(f"stored_{name}_same_places", places)
    bench.show(table)
    bench.note("stored_queries", len(queries))


def _fresh(bench: Bench) -> System:
    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        return _ranking(bench, ColBERTScorer(bench.colbert, cache_bytes=0), query, "encoded")

    return ready


def _from_index(bench: Bench, nbits: int, *, met: bool) -> System:
    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        ranking = _ranking(bench, ColBERTScorer(bench.colbert, bench.index(nbits)), query, "stored")
        if met:
            ranking()
        return ranking

    return ready


def _from_float16(bench: Bench) -> System:
    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        scorer = ColBERTScorer(bench.colbert, bench.small_index(query.candidates))
        return _ranking(bench, scorer, query, "stored")

    return ready


def _ranking(bench: Bench, scorer: ColBERTScorer, query: CandidateQuery, how: str) -> Callable[[], list[str]]:
    reranker = Reranker(scorer)
    candidates = [Candidate(candidate.id, candidate.text) for candidate in query.candidates]

    def ranking() -> list[str]:
        ranked = reranker.rank(query.text, candidates)
        _require_all(bench, ranked, how)
        return [query.candidates[candidate.place].id for candidate in ranked[:K]]

    return ranking


def _require_all(bench: Bench, ranked: list[Ranked], how: str) -> None:
    wrong = {str(candidate.note.get("vectors_from")) for candidate in ranked} - {how}
    if wrong:
        bench.failures.append(f"vectors were {', '.join(sorted(wrong))}; expected {how}")
