"""``rerank-integrations compare``: show the queries whose results differ between two evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from rerank_integrations.cli.highlight import highlight
from rerank_integrations.cli.options import AsJson
from rerank_integrations.cli.output import has_colours, show, write_json
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.evaluation import METRICS, Comparison, QueryChange, ShownPassage, read_result
from rerank_integrations.evaluation import compare as compare_results

_CHARACTERS_PER_PASSAGE = 200
_MAX_OTHER_PASSAGES = 8


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result of 'evaluate': a JSON file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The result to compare with it.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA", help="Their test collection; by default its path at the time of the evaluation."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help=f"Metric to compare by: {', '.join(METRICS)}.")] = "nDCG@10",
    top: Annotated[int, typer.Option(min=0, help="Number of changed queries to show.")] = 10,
    colbert: Annotated[
        str,
        typer.Option(
            help="ColBERT model whose matched words are marked; 'auto': that of B, else of A; 'none': no marks."
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show the queries whose metric differs between two results, with the passages that changed ranks."""
    before, after = read_result(a), read_result(b)
    model = None if colbert == "none" else colbert
    comparison = compare_results(before, after, data, metric=metric, top=top, colbert=model)
    if as_json:
        write_json({"files": {"a": str(a), "b": str(b)}, **comparison.to_json()})
        return
    _write_summary(comparison, a, b)
    for number, change in enumerate(comparison.changes, start=1):
        show()
        show(_change(change, comparison.metric, number))
        _write_others(change)


def _write_summary(comparison: Comparison, a: Path, b: Path) -> None:
    table = Table(title=f"{comparison.data['name']}: {comparison.metric}", title_justify="left", caption_justify="left")
    table.add_column("")
    table.add_column("pipeline", overflow="fold")
    table.add_column("result", overflow="fold")
    table.add_column(comparison.metric, justify="right")
    table.add_row("A", comparison.name_a, str(a), f"{comparison.mean_a:.3f}")
    table.add_row("B", comparison.name_b, str(b), f"{comparison.mean_b:.3f}")
    show(table)
    chance = "" if comparison.p_value is None else f"; paired t-test: p = {_formatted_p(comparison.p_value)}"
    difference = comparison.mean_b - comparison.mean_a
    show(
        f"B is {difference:+.3f}: {comparison.better:,} queries better, {comparison.worse:,} worse, "
        f"{comparison.same:,} the same{chance}."
    )
    if comparison.changes and comparison.colbert is not None:
        show(f"Words that {comparison.colbert} matched with the query are marked.")


def _formatted_p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _change(change: QueryChange, metric: str, number: int) -> Table:
    title = Text(f"{number}. {printable(change.text)}\n", style="bold")
    difference = change.value_b - change.value_a
    title.append(
        f"{printable(change.id)}: {metric} {change.value_a:.3f} in A, {change.value_b:.3f} in B ({difference:+.3f})",
        style="not bold green" if difference > 0 else "not bold red",
    )
    table = Table(title=title, title_style="", title_justify="left", show_lines=True)
    table.add_column("A", justify="right")
    table.add_column("B", justify="right")
    table.add_column("passage", overflow="fold")
    styled = has_colours()
    for passage in change.passages:
        table.add_row(_rank(passage.rank_a), _rank(passage.rank_b), _passage(passage, styled=styled))
    return table


def _passage(passage: ShownPassage, *, styled: bool) -> Text:
    return Text.assemble(
        (printable(passage.id), "cyan"),
        "  ",
        _judged(passage.grade),
        "\n",
        highlight(passage.text, passage.matches, styled=styled, width=_CHARACTERS_PER_PASSAGE),
    )


def _judged(grade: int | None) -> Text:
    if grade is None:
        return Text("not judged", style="dim")
    if grade <= 0:
        return Text("not relevant", style="red")
    return Text("relevant" if grade == 1 else f"relevant, grade {grade}", style="green")


def _rank(rank: int | None) -> str:
    return "–" if rank is None else str(rank)


def _write_others(change: QueryChange) -> None:
    """Name the relevant passages that are not in the table."""
    shown = {passage.id for passage in change.passages}
    others = [passage for passage in change.relevant if passage.id not in shown]
    if not others:
        return
    named = [
        f"{passage.id} ({_rank(passage.rank_a)} in A, {_rank(passage.rank_b)} in B)"
        for passage in others[:_MAX_OTHER_PASSAGES]
    ]
    rest = f" and {len(others) - _MAX_OTHER_PASSAGES:,} more" if len(others) > _MAX_OTHER_PASSAGES else ""
    show(f"Also relevant: {', '.join(named)}{rest}")
