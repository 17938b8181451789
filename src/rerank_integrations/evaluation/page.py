"""The HTML page of a report, from its sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from rerank_integrations.evaluation import tables
from rerank_integrations.evaluation.data import Facts
from rerank_integrations.evaluation.measuring import Measured
from rerank_integrations.evaluation.plots import (
    bars,
    latency_by_candidates,
    quality_against_latency,
    quality_by_candidates,
    stacked_stages,
)
from rerank_integrations.evaluation.summary import COMPARED_BY, Row, series_by_candidates

# Characters that XML and HTML forbid, or that UTF-8 cannot encode.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FRONT = (
    "A filled diamond is on the Pareto front: no other pipeline is as fast and as good, and better in one. A "
    "hollow circle is beaten. The dashed steps are the best that is to be had up to each latency."
)


@dataclass(frozen=True)
class Figure:
    """A plot, as SVG, with its caption."""

    title: str
    text: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of the page; `texts` says that its tables contain words, not figures."""

    title: str
    tables: Sequence[tables.Table] = ()
    figures: Sequence[Figure] = ()
    note: str = ""
    texts: bool = False


def render(data: Facts, results: Sequence[Measured], rows: Sequence[Row]) -> str:
    """Return the page of results and their rows, which have the same order; the page fetches nothing."""
    here = files(__package__)
    template = (here / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page = environment.from_string(template).render(
        title=f"{data['name']}: {len(rows)} pipelines compared",
        subtitle=f"{data['passages']:,} passages, {data['queries']:,} queries.",
        sections=[
            Section("Quality", [tables.quality_table(rows)]),
            _against_latency(rows),
            _by_candidates(results, rows),
            _cost(rows),
            _memory(rows),
            _how(data, results),
        ],
        style=(here / "page.css").read_text(encoding="utf-8"),
    )
    return _FORBIDDEN.sub("\ufffd", page)


def _against_latency(rows: Sequence[Row]) -> Section:
    drawn = [
        Figure(f"{COMPARED_BY} against p{percentile}", _FRONT, quality_against_latency(rows, percentile))
        for percentile in (50, 95)
    ]
    return Section("Quality against latency", figures=drawn)


def _by_candidates(results: Sequence[Measured], rows: Sequence[Row]) -> Section:
    series = series_by_candidates(results, rows)
    if not series:
        return Section(
            "Number of candidates",
            note="No reranker was measured at several numbers of candidates; --candidates 10,25,50,100 does that.",
        )
    ends = "0 candidates is the retriever alone, where it was measured."
    drawn = [
        Figure("Latency by candidates", f"Solid lines are p50, dashed ones p95. {ends}", latency_by_candidates(series)),
        Figure(f"{COMPARED_BY} by candidates", ends, quality_by_candidates(series)),
    ]
    return Section("Number of candidates", figures=drawn)


def _cost(rows: Sequence[Row]) -> Section:
    text = "Medians end to end, and behind them the median of the total, which need not be their sum."
    drawn = Figure("A query's stages", text, stacked_stages(rows))
    return Section("Cost", [tables.latency_table(rows), tables.size_table(rows)], [drawn])


def _memory(rows: Sequence[Row]) -> Section:
    peak = bars(rows, [row.peak_mb for row in rows], "peak memory", "MB")
    index = bars(rows, [row.index_mb for row in rows], "size of the index", "MB")
    drawn = [
        Figure("Peak memory", "The most that the process held, its models included.", peak),
        Figure(
            "Size of the index",
            "What retriever and rerankers hold of the passages; a ColBERT index with their texts.",
            index,
        ),
    ]
    if any(row.gpu_mb is not None for row in rows):
        on_gpu = bars(rows, [row.gpu_mb for row in rows], "peak GPU memory", "MB")
        drawn.append(Figure("Peak GPU memory", "The most that torch held.", on_gpu))
    return Section("Memory and size", figures=drawn)


def _how(data: Facts, results: Sequence[Measured]) -> Section:
    return Section(
        "How it was measured",
        [
            tables.facts_table(data),
            tables.pipelines_table(results),
            *tables.machine_tables(results),
            tables.threads_table(results),
            tables.commands_table(results),
        ],
        note="Each pipeline of `evaluate` ran in a process of its own. Latencies are of one caller, query after query.",
        texts=True,
    )
