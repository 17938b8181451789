"""Bars that lie, a pipeline each: one figure, or the stages of a query end to end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerank_integrations.evaluation.measuring import STAGES
from rerank_integrations.evaluation.report.axes import Scale, linear, tick_texts
from rerank_integrations.evaluation.report.svg import Element, add, drawing, group, shortened, text_width
from rerank_integrations.evaluation.summary import Row

_WIDTH = 640.0
_ROW = 26.0
_BAR = 16.0
_TOP, _BOTTOM = 36.0, 48.0
_LONGEST_NAME = 220.0
# The upper part of `_TOP`, which a drawing without a legend leaves out.
_LEGEND = 26.0
# Room for the figure behind a bar.
_FIGURE = 76.0


def bars(rows: Sequence[Row], values: Sequence[float | None], what: str, unit: str) -> Element:
    """Return a bar for each row's value; one that is ``None`` or not a number has a dash instead."""
    known = [0.0 if value is None or math.isnan(value) else value for value in values]
    svg, scale = _drawing(rows, known, what, unit, top=_LEGEND)
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is None or math.isnan(value):
            _write(svg, "–", scale.start, number)
            continue
        bar = group(svg, f"{row.label}: {what} {value:,.1f} {unit}", "bar")
        _draw(bar, "one", scale.start, scale.at(value), number)
        _write(svg, figure_text(value), scale.at(value), number)
    return svg


def stacked_stages(rows: Sequence[Row]) -> Element:
    """Return the median of each stage's milliseconds, end to end, with the median of the total behind them."""
    sums = [sum(row.ms[stage][0] for stage in STAGES) for row in rows]
    svg, scale = _drawing(rows, sums, "median of each stage of a query", "ms", top=0)
    _draw_patterns(svg)
    x = scale.start
    for stage in STAGES:
        add(svg, "rect", class_=f"stage {stage}", x=x, y=8, width=14, height=14)
        add(svg, "text", stage, class_="name", x=x + 20, y=20)
        x += 40 + text_width(stage)
    for number, row in enumerate(rows):
        at = 0.0
        for stage in STAGES:
            bar = group(svg, f"{row.label}: {stage} p50 {row.ms[stage][0]:,.2f} ms", "bar")
            _draw(bar, f"stage {stage}", scale.at(at), scale.at(at + row.ms[stage][0]), number)
            at += row.ms[stage][0]
        _write(svg, figure_text(row.ms["total"][0]), scale.at(at), number)
    return svg


def figure_text(value: float) -> str:
    """Return a figure with as many decimals as it needs to be told from its likes."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:,.2f}"


def _drawing(
    rows: Sequence[Row], values: Sequence[float], what: str, unit: str, *, top: float
) -> tuple[Element, Scale]:
    """Return a drawing with the axis and the names, a line for each row."""
    names = [shortened(row.label, _LONGEST_NAME) for row in rows]
    left = max(text_width(name) for name in names) + 16
    bottom = _TOP + _ROW * len(rows)
    scale = linear(values, left, _WIDTH - _FIGURE, from_zero=True)
    svg = drawing(_WIDTH, bottom + _BOTTOM, f"{what} in {unit}, {len(rows)} pipelines", top)
    for tick, text in zip(scale.ticks, tick_texts(scale), strict=True):
        add(svg, "line", class_="grid", x1=scale.at(tick), x2=scale.at(tick), y1=_TOP - 4, y2=bottom)
        add(svg, "text", text, class_="tick", x=scale.at(tick), y=bottom + 18, text_anchor="middle")
    add(svg, "line", class_="axis", x1=left, x2=left, y1=_TOP - 4, y2=bottom)
    add(svg, "text", f"{what}, {unit}", class_="title", x=(left + scale.end) / 2, y=bottom + 40, text_anchor="middle")
    for number, name in enumerate(names):
        add(svg, "text", name, class_="name", x=left - 8, y=_middle(number) + 4.5, text_anchor="end")
    return svg, scale


def _middle(number: int) -> float:
    return _TOP + _ROW * (number + 0.5)


def _draw(parent: Element, class_: str, start: float, end: float, number: int) -> None:
    add(parent, "rect", class_=class_, x=start, y=_middle(number) - _BAR / 2, width=end - start, height=_BAR)


def _write(svg: Element, text: str, after: float, number: int) -> None:
    add(svg, "text", text, class_="tick", x=after + 6, y=_middle(number) + 4.5)


def _draw_patterns(svg: Element) -> None:
    """Define the hatches by which stages differ where colours do not tell."""
    definitions = add(svg, "defs")
    for stage, d in (("retrieve", "M-2,2L2,-2M0,8L8,0M6,10L10,6"), ("rerank", "M0,4H8M4,0V8")):
        pattern = add(definitions, "pattern", id=f"of-{stage}", width="8", height="8", patternUnits="userSpaceOnUse")
        add(pattern, "rect", class_=f"{stage}-ground", width="8", height="8")
        add(pattern, "path", class_="hatch", d=d)
