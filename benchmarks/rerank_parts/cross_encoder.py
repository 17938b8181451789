"""Comparison of our cross-encoder with `sentence_transformers.CrossEncoder.predict` and the same weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich.table import Table
from sentence_transformers import CrossEncoder

from rerank_integrations import Candidate, CrossEncoderModel, CrossEncoderScorer, Reranker, starter
from rerank_parts.bench import Bench, K, System
from rerank_parts.data import CandidateQuery, mixed

_THEIRS = "predict"
# "default" is one of the others, depending on the processor.
_OURS: dict[str, dict[str, Any]] = {
    "default": {},
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "openvino_bfloat16": {"backend": "openvino", "dtype": "bfloat16"},
    "onnx_int8": {"backend": "onnx", "dtype": "int8"},
    "openvino_int8": {"backend": "openvino", "dtype": "int8"},
}


def cross_encoder(bench: Bench) -> None:
    """Compare speed and order, in turns, on candidates of mixed length."""
    depth = bench.sizes.depth
    queries = mixed(bench.data, bench.sizes.cross, depth)
    model = CrossEncoder(modules=starter.cross_encoder_modules(), device="cpu")
    systems: dict[str, System] = {_THEIRS: _predict(model)}
    absent: list[str] = []
    for name, options in _OURS.items():
        try:
            ours = CrossEncoderModel("starter", device="cpu", **options)
            ours.score("a query", ["a text"])
        except Exception as error:
            # A failure to load one of them is reported, and the others are measured.
            bench.tell(f"{name}: not to be had: {error}")
            absent.append(name)
            continue
        systems[name] = _ours(ours)
    taken = bench.in_turns(systems, queries)
    theirs = taken[_THEIRS]
    title = f"cross-encoder: {depth} candidates, {len(queries)} queries of scifact; {_lengths(model, queries)}"
    table = Table("model", "ms a query", "times as fast", f"top {K} the same", "at the same place", title=title)
    for name, times in taken.items():
        ratio, overlap, places = theirs.median_ms / times.median_ms, times.overlap(theirs), times.same_places(theirs)
        table.add_row(name, f"{times.median_ms:.0f}", f"{ratio:.2f}", f"{overlap:.3f}", f"{places:.3f}")
        bench.note(f"cross_encoder_{name}_ms", times.median_ms)
        if name != _THEIRS:
            bench.note(f"cross_encoder_{name}_ratio", ratio)
            bench.note(f"cross_encoder_{name}_overlap10", overlap)
            bench.note(f"cross_encoder_{name}_same_places", places)
    for name in absent:
        table.add_row(name, "not to be had")
    bench.show(table)
    bench.note("cross_encoder_queries", len(queries))


def _predict(model: CrossEncoder) -> System:
    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        pairs = [(query.text, candidate.text) for candidate in query.candidates]

        def ranking() -> list[str]:
            scores = model.predict(pairs)
            order = sorted(range(len(pairs)), key=lambda position: -scores[position])
            return [query.candidates[position].id for position in order[:K]]

        return ranking

    return ready


def _ours(model: CrossEncoderModel) -> System:
    reranker = Reranker(CrossEncoderScorer(model), top_n=K)

    def ready(query: CandidateQuery) -> Callable[[], list[str]]:
        candidates = [Candidate(candidate.id, candidate.text) for candidate in query.candidates]
        return lambda: [query.candidates[candidate.place].id for candidate in reranker.rank(query.text, candidates)]

    return ready


def _lengths(model: CrossEncoder, queries: list[CandidateQuery]) -> str:
    pairs = [(query.text, candidate.text) for query in queries for candidate in query.candidates]
    tokenized = model.tokenizer([a for a, _ in pairs], [b for _, b in pairs], truncation=False, verbose=False)
    tenths = statistics.quantiles([len(ids) for ids in tokenized["input_ids"]], n=10)
    return f"tokens of a pair: {tenths[0]:.0f} to {tenths[-1]:.0f} in eight of ten, median {tenths[4]:.0f}"
