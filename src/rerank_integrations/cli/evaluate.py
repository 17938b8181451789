"""``rerank-integrations evaluate``: pipelines side by side on a test collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rerank_integrations.cli.output import console, write_json
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation import Row, load_dataset, presets, read_pipelines, summarize
from rerank_integrations.evaluation import evaluate as evaluate_pipelines
from rerank_integrations.evaluation.measuring import STAGES

_CHANCE = 0.05


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A test collection: a folder in BEIR layout.")],
    pipelines: Annotated[
        str,
        typer.Option(help="Presets, joined by commas, or 'all' of them, or a YAML file that declares pipelines."),
    ] = "bm25,dense,dense+colbert,colbert-2bit",
    out: Annotated[Path | None, typer.Option(help="Keep results here. [default: evaluation/DATA]")] = None,
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    colbert: Annotated[str, typer.Option(help="ColBERT checkpoint of the presets.")] = "starter",
    dense: Annotated[str, typer.Option(help="Bi-encoder of the presets.")] = "starter",
    cross_encoder: Annotated[
        str | None, typer.Option(help="Cross-encoder of the presets, which those with one need.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Measure quality, latency and memory of pipelines; stopped, it goes on where it was."""
    if Path(pipelines).suffix in (".yaml", ".yml"):
        chosen = read_pipelines(pipelines)
    else:
        known = presets(colbert, dense, cross_encoder)
        names = list(known) if pipelines == "all" else pipelines.split(",")
        if unknown := [name for name in names if name not in known]:
            raise InvalidInputError(f"unknown pipelines {', '.join(unknown)}; expected some of {', '.join(known)}")
        chosen = [known[name] for name in names]
    collection = load_dataset(data, split)
    results = evaluate_pipelines(data, chosen, out or Path("evaluation") / collection.name, split=split)
    rows = summarize(results, collection.qrels)
    if as_json:
        write_json({"data": collection.facts(), "rows": [asdict(row) for row in rows]})
        return
    console().print(_quality(rows, f"{collection.name}: {len(collection.passages):,} passages"))
    console().print(_cost(rows))


def _quality(rows: Sequence[Row], title: str) -> Table:
    table = _table(title, rows[0].quality)
    for row in rows:
        unsure = row.p_value is not None and row.p_value >= _CHANCE
        marks = {"nDCG@10": "~" if unsure else ""}
        table.add_row(row.name, *(f"{value:.3f}{marks.get(name, '')}" for name, value in row.quality.items()))
    table.caption = f"~ may differ from {rows[0].name} by chance alone (paired t-test, p >= {_CHANCE})"
    return table


def _cost(rows: Sequence[Row]) -> Table:
    times = ("p50 ms", "p95", "p99", *STAGES)
    rates = [f"/s by {callers}" for callers in rows[0].per_s]
    table = _table("a query, its stages at p50, and what it takes", (*times, *rates, "build s", "index MB", "peak MB"))
    for row in rows:
        ms = [*row.ms["total"], *(row.ms[stage][0] for stage in STAGES)]
        whole = [*row.per_s.values(), row.build_s, row.index_mb, row.peak_mb]
        table.add_row(
            row.name, *(f"{value:.1f}" for value in ms), *("–" if value is None else f"{value:,.0f}" for value in whole)
        )
    return table


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("pipeline", overflow="fold", min_width=12)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
