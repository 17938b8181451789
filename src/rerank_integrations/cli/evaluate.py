"""``rerank-integrations evaluate`` and ``report``: compare pipelines on a test collection."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rerank_integrations.cli.options import AsJson, Collection, Split
from rerank_integrations.cli.output import show, show_on_stderr, write_json
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation import (
    Pipeline,
    Row,
    at_candidates,
    load_dataset,
    presets,
    read_pipelines,
    report_kept,
    summarize,
    summary_document,
    write_report,
)
from rerank_integrations.evaluation import evaluate as evaluate_pipelines
from rerank_integrations.evaluation.evaluating import SUMMARY
from rerank_integrations.evaluation.measuring import STAGES
from rerank_integrations.evaluation.summary import CHANCE, NOT_COMPRESSED


def evaluate(
    context: typer.Context,
    data: Collection,
    pipelines: Annotated[
        str,
        typer.Option(help="Names of presets, separated by commas, or 'all', or a YAML file that declares pipelines."),
    ] = "bm25,dense,dense+colbert,colbert-2bit",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. \\[default: evaluation/DATA, and -SPLIT unless test]")
    ] = None,
    split: Split = "test",
    queries: Annotated[
        int | None, typer.Option(help="Number of queries to draw; the draw is always the same. \\[default: all]")
    ] = None,
    colbert: Annotated[str, typer.Option(help="ColBERT checkpoint for the presets.")] = "starter",
    dense: Annotated[str, typer.Option(help="Bi-encoder checkpoint for the presets.")] = "starter",
    cross_encoder: Annotated[str, typer.Option(help="Cross-encoder checkpoint for the presets.")] = "starter",
    candidates: Annotated[
        str | None,
        typer.Option(
            help="Numbers of candidates that presets with a reranker are measured with: 10,25,50,100. \\[default: 50]"
        ),
    ] = None,
    callers: Annotated[
        str, typer.Option(help="Numbers of concurrent callers that queries per second are measured with.")
    ] = "1,8",
    as_json: AsJson = False,
) -> None:
    """Measure the quality, latency and memory of pipelines; a run that was stopped continues where it was."""
    counts = None if candidates is None else _counts(candidates, "--candidates")
    numbers_of_callers = _counts(callers, "--callers")
    selected = _pipelines(pipelines, presets(colbert, dense, cross_encoder), counts)
    collection = load_dataset(data, split, queries)
    folder = out or Path("evaluation") / (collection.name if split == "test" else f"{collection.name}-{split}")
    command = shlex.join(["rerank-integrations", *context.obj])
    results = evaluate_pipelines(
        data, selected, folder, split=split, queries=queries, callers=numbers_of_callers, command=command
    )
    rows = summarize(results, collection.qrels)
    page = write_report(folder, results, rows)
    if as_json:
        write_json(summary_document(results, rows))
    else:
        show(quality_table(rows, f"{collection.name}: {len(collection.passages):,} passages"))
        show(_latency(rows))
        show(_size(rows))
        if any(row.label != row.name for row in rows):
            show(NOT_COMPRESSED)
    _show_report(page)


def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder with the results of 'evaluate'.")],
) -> None:
    """Write the report of all results in a folder, without the collection and without running anything."""
    page, left_out = report_kept(results)
    if left_out:
        show_on_stderr(f"left out, measured on another collection: {', '.join(left_out)}")
    _show_report(page)


def _show_report(page: Path) -> None:
    show_on_stderr(f"report: {page}, its figures: {page.with_name(SUMMARY)}")


def _counts(text: str, option: str) -> list[int]:
    try:
        return [int(count) for count in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(f"{option} is {text!r}; expected whole numbers above 0, joined by commas") from error


def _pipelines(text: str, known: dict[str, Pipeline], counts: Sequence[int] | None) -> list[Pipeline]:
    """Return the pipelines of a YAML file, or the presets of these names."""
    if Path(text).suffix in (".yaml", ".yml"):
        if counts is not None:
            raise InvalidInputError(f"--candidates is for presets; {text} declares its own, by candidates:")
        return read_pipelines(text)
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise InvalidInputError(f"unknown pipelines {', '.join(unknown)}; expected some of {', '.join(known)}")
    pipelines = [known[name] for name in names]
    return pipelines if counts is None else at_candidates(pipelines, counts)


def quality_table(rows: Sequence[Row], title: str) -> Table:
    """Return a table of each row's metrics, with a mark where nDCG@10 may differ from the first row's by chance."""
    table = _table(title, rows[0].quality)
    for row in rows:
        marks = {"nDCG@10": "~" if row.may_be_chance else ""}
        table.add_row(row.label, *(f"{value:.3f}{marks.get(name, '')}" for name, value in row.quality.items()))
    table.caption = f"~ may differ from {rows[0].label} by chance alone (paired t-test, p >= {CHANCE})"
    return table


def _latency(rows: Sequence[Row]) -> Table:
    table = _table("milliseconds per query, and per stage at p50", ("p50", "p95", "p99", *STAGES))
    for row in rows:
        ms = [*row.ms["total"], *(row.ms[stage][0] for stage in STAGES)]
        table.add_row(row.label, *(f"{value:,.1f}" for value in ms))
    return table


def _size(rows: Sequence[Row]) -> Table:
    gpu = any(row.gpu_mb is not None for row in rows)
    rates = [f"/s by {callers}" for callers in rows[0].per_s]
    sizes = ("build s", "index MB", "peak MB", *(("GPU MB",) if gpu else ()))
    table = _table("queries per second by number of callers, and resources", (*rates, *sizes))
    for row in rows:
        whole = [*row.per_s.values(), row.build_s, row.index_mb, row.peak_mb, *((row.gpu_mb,) if gpu else ())]
        table.add_row(row.label, *("–" if value is None else f"{value:,.0f}" for value in whole))
    return table


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("pipeline", overflow="fold", min_width=12)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
