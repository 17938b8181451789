"""``rerank-integrations compare``: what changed from one result of an evaluation to another, query by query."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from rerank_integrations.cli.highlight import highlight
from rerank_integrations.cli.output import has_colours, show, write_json
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.evaluation import METRICS, Comparison, QueryChange, ShownPassage, read_result
from rerank_integrations.evaluation import compare as compare_results

# Characters of a passage, and relevant passages that are named without their text.
_WIDTH = 200
_NAMED = 8


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result that 'evaluate' kept: a JSON file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare with it.")],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Their test collection; by default where it was then.")
    ] = None,
    metric: Annotated[str, typer.Option(help=f"One of {', '.join(METRICS)}.")] = "nDCG@10",
    top: Annotated[int, typer.Option(min=0, help="How many of the queries that changed to show.")] = 10,
    colbert: Annotated[
        str,
        typer.Option(help="Mark words that this ColBERT model matched; 'auto': B's, else A's; 'none': none."),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show which queries changed between two results, and which passages took each other's place."""
    before, after = read_result(a), read_result(b)
    model = None if colbert == "none" else colbert
    found = compare_results(before, after, data, metric=metric, top=top, colbert=model)
    if as_json:
        write_json({"files": {"a": str(a), "b": str(b)}, **found.to_json()})
        return
    _write_summary(found, a, b)
    for number, change in enumerate(found.changes, start=1):
        show()
        show(_change(change, found.metric, number))
        _write_others(change)


def _write_summary(found: Comparison, a: Path, b: Path) -> None:
    table = Table(title=f"{found.data['name']}: {found.metric}", title_justify="left", caption_justify="left")
    table.add_column("")
    table.add_column("pipeline", overflow="fold")
    table.add_column("result", overflow="fold")
    table.add_column(found.metric, justify="right")
    table.add_row("A", found.name_a, str(a), f"{found.mean_a:.3f}")
    table.add_row("B", found.name_b, str(b), f"{found.mean_b:.3f}")
    show(table)
    chance = "" if found.p_value is None else f"; paired t-test: p = {_p(found.p_value)}"
    show(
        f"B is {found.mean_b - found.mean_a:+.3f}: {found.better:,} queries better, {found.worse:,} worse, "
        f"{found.same:,} the same{chance}."
    )
    if found.changes and found.colbert is not None:
        show(f"Words that {found.colbert} matched with the query are marked.")


def _p(value: float) -> str:
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
        highlight(passage.text, passage.matches, styled=styled, width=_WIDTH),
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
    """Name the relevant passages that the table has no room for."""
    shown = {passage.id for passage in change.passages}
    others = [passage for passage in change.relevant if passage.id not in shown]
    if not others:
        return
    named = [f"{one.id} ({_rank(one.rank_a)} in A, {_rank(one.rank_b)} in B)" for one in others[:_NAMED]]
    rest = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    show(f"Also relevant: {', '.join(named)}{rest}")
