"""``rerank-integrations tune``: choose the settings of a ColBERT index for a time limit per query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from rerank_integrations.cli.options import AsJson, Collection, Split
from rerank_integrations.cli.output import show, show_on_stderr, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation import Trial, Tuning, WeightFit, load_dataset
from rerank_integrations.evaluation import tune as tune_index
from rerank_integrations.evaluation.summary import CHANCE
from rerank_integrations.evaluation.tuning import RECALL_AT

_LEGEND = (
    "> chosen; - the default; ! over the budget; loss: of nDCG@10 against exact\n"
    f"MaxSim, ~ where it may be chance (paired t-test, p >= {CHANCE})"
)


def tune(
    data: Collection,
    budget_ms: Annotated[
        float, typer.Option(help="Milliseconds that a query may take, including its encoding.")
    ] = 20.0,
    percentile: Annotated[
        int, typer.Option(help="Percentile of the queries that must meet the budget: 95, or 50 for the median.")
    ] = 95,
    top_n: Annotated[
        int | None, typer.Option(help="Number of hits that you use. \\[default: by --recall-share]")
    ] = None,
    recall_share: Annotated[
        float, typer.Option(help="Choose the number of hits that reaches this share of the recall at 100.")
    ] = 0.99,
    colbert: Annotated[str, typer.Option(help="ColBERT checkpoint: name or path, or 'starter'.")] = "starter",
    cross_encoder: Annotated[
        str | None, typer.Option(help="Also choose the number of hits that this cross-encoder reranks.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Largest number of queries to measure.")] = 300,
    store: Annotated[
        Path | None, typer.Option(metavar="INDEX", help="Store the fitted weight of BM25 in this index.")
    ] = None,
    split: Split = "test",
    as_json: AsJson = False,
) -> None:
    """Choose nbits, n_candidates, n_probe and top_n of a ColBERT index by quality, time and size.

    The weight of BM25 in a hybrid search is fitted too, and measured on queries that it was not fitted to.

    The exit code is 1 if no setting is within the budget.
    """
    tuning = tune_index(
        load_dataset(data, split),
        colbert,
        budget_ms=budget_ms,
        percentile=percentile,
        top_n=top_n,
        recall_share=recall_share,
        cross_encoder=cross_encoder,
        queries=queries,
    )
    if as_json:
        write_json(tuning.to_json())
    else:
        _show(tuning)
    if store is not None:
        _store(tuning, store)
    if tuning.shortfall:
        show_on_stderr(f"error: {tuning.shortfall}")
        raise typer.Exit(1)


def _store(tuning: Tuning, path: Path) -> None:
    if tuning.hybrid is None:
        raise InvalidInputError("there are too few queries to fit the weight of BM25; nothing was stored")
    with ColBERTIndex.open(path) as index:
        index.store_bm25_weight(tuning.hybrid.weight)
    show_on_stderr(f"{path}: bm25_weight {tuning.hybrid.weight:g} stored")


def _hybrid(fit: WeightFit) -> str:
    """Return what a hybrid search is worth, in a few lines."""
    ndcg = {
        name: f"{value:.3f}{'' if name == 'hybrid' or (p := fit.p_value[name]) is None or p < CHANCE else '~'}"
        for name, value in fit.ndcg.items()
    }
    return (
        f"\nhybrid: nDCG@10 {ndcg['hybrid']} by {len(fit.fold_weights)}-fold cross-validation; ColBERT alone "
        f"{ndcg['colbert']}, BM25 alone {ndcg['bm25']}\n"
        f"bm25_weight = {fit.weight:g} by all queries; {', '.join(f'{w:g}' for w in fit.fold_weights)} by fold; "
        f"{fit.ms:.1f} ms a search without encoding at p50\n"
        '--store INDEX stores it; search(query, search_type="hybrid") uses it'
    )


def _show(tuning: Tuning) -> None:
    data = tuning.data
    show(
        f"{data['name']}: {data['passages']:,} passages, {tuning.tokens:,} tokens of {tuning.dim} dimensions, "
        f"{data['queries']:,} queries\nat most {tuning.budget_ms:g} ms at p{tuning.percentile}",
    )
    show(_trials(tuning))
    show(_LEGEND)
    show(f"\nrecall by hits handed on; chosen: top_n = {tuning.top_n}")
    show(_recall(tuning))
    if tuning.hybrid is not None:
        show(_hybrid(tuning.hybrid))
    for note in tuning.notes:
        show(note)
    show(
        f"A query takes {tuning.called_ms[50]:.1f} ms at p50 and {tuning.called_ms[95]:.1f} ms at p95; "
        f"encoding alone takes {tuning.encode_ms[50]:.1f} and {tuning.encode_ms[95]:.1f}.\n"
    )
    show(tuning.code())


def _trials(tuning: Tuning) -> Table:
    table = _table()
    settings = _settings(tuning, tuning.chosen)
    for heading in ("", *settings, "nDCG\n@10", "loss", "R@10", "R@100", "p50\nms", "p95\nms", "bytes/\ntoken"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("exact", *_cells(tuning, tuning.exact))
    step = ""
    for trial in tuning.trials:
        if trial.step != step:
            table.add_section()
        step = trial.step
        chosen = trial is tuning.chosen
        table.add_row(">" if chosen else "", *_cells(tuning, trial), style="bold" if chosen else None)
    return table


def _settings(tuning: Tuning, trial: Trial) -> dict[str, str]:
    """Return the settings that this run chooses, by their headings."""
    setting = trial.setting
    shown: dict[str, int | None] = {}
    if tuning.compressed:
        shown |= {"bits": setting.nbits, "candi-\ndates": setting.n_candidates, "pro-\nbes": setting.n_probe}
    shown["k"] = setting.k
    if tuning.cross_encoder is not None:
        shown["read"] = setting.read
    return {heading: "-" if value is None else str(value) for heading, value in shown.items()}


def _cells(tuning: Tuning, trial: Trial) -> list[str]:
    quality = trial.quality
    settings = list(_settings(tuning, trial).values())
    loss = f"{trial.loss:.3f}{' ' if trial.p_value is None or trial.p_value < CHANCE else '~'}"
    over = " " if tuning.within_budget(trial) else "!"
    if trial is tuning.exact:
        settings, loss, over = [""] * len(settings), "", " "
    marks = {tuning.percentile: over}
    return [
        *settings,
        f"{quality['nDCG@10']:.3f}",
        loss,
        f"{quality['recall@10']:.3f}",
        f"{quality['recall@100']:.3f}",
        *(f"{ms:.1f}{marks.get(percentile, '')}" for percentile, ms in trial.ms.items()),
        f"{trial.bytes_per_token:.1f}",
    ]


def _recall(tuning: Tuning) -> Table:
    table = _table()
    table.add_column("")
    depths = sorted({*RECALL_AT, tuning.top_n})
    for depth in depths:
        table.add_column(str(depth), justify="right", style="bold" if depth == tuning.top_n else None)
    for name, trial in (("exact MaxSim", tuning.exact), ("setting chosen", tuning.chosen)):
        table.add_row(name, *(f"{trial.recall[depth - 1]:.3f}" for depth in depths))
    return table


def _table() -> Table:
    return Table(box=SIMPLE, padding=0, pad_edge=False)
