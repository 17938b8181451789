"""The plots of a report: quality against latency, both against the number of candidates, and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from rerank_integrations.evaluation.drawing import (
    COLOURS,
    FONT_SIZE,
    Drawing,
    drawing,
    scale_linear,
    scale_logarithmic,
    shortened,
    text_width,
)
from rerank_integrations.evaluation.measuring import STAGES
from rerank_integrations.evaluation.summary import COMPARED_BY, PERCENTILES, Row, Series

# Lengths are in pixels of a plot in full size.
_WIDTH = 640.0
_HEIGHT = 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 24.0, 44.0, 52.0
_MOST_TICKS_UP = 9
_LONGEST_NAME = 220.0
_NAME_HEIGHT = FONT_SIZE + 3.0
_LINE_HEIGHT = 17.0
# The width of the margin for names at the ends of lines.
_NAMES_WIDTH = 228.0
# The number of names that fit into `_HEIGHT`; more make the plot higher.
_NAMES_OF_HEIGHT = 12
# A logarithmic axis shows this instead of 0.
_SMALLEST_MS = 1e-3
_MARKER_RADIUS = 8.0
# Series differ by shape as well as by colour.
_SHAPES = "os^Dv*"
# A name that is farther from its point than this is joined to it by a line.
_MAX_UNJOINED_DISTANCE = 14.0
_DIRECTIONS = (0, 180, 90, 270, 315, 45, 225, 135, 337, 22, 202, 157, 292, 67, 247, 112)
_BAR_HEIGHT, _BAR_SHARE = 26.0, 0.62
_BARS_TOP, _BARS_BOTTOM = 10.0, 48.0
# Room for the figure behind a bar, and for the legend.
_FIGURE_WIDTH, _LEGEND_HEIGHT = 76.0, 26.0
# The least width for the text of a tick.
_TICK_WIDTH = 48.0
# Stages differ by hatch as well as by colour.
_HATCHES = {"encode": "", "retrieve": "///", "rerank": "++"}

_Figure: TypeAlias = Callable[[Row], float]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point beats, by rising cost.

    Parameters
    ----------
    points
        Cost, lower is better, and quality, higher is better. One point beats another if it is as good in both and
        better in one; equal points do not beat each other.
    """
    front: list[int] = []
    for number in sorted(range(len(points)), key=lambda number: (points[number][0], -points[number][1])):
        if not front or points[number][1] > points[front[-1]][1] or points[number] == points[front[-1]]:
            front.append(number)
    return front


def quality_against_latency(rows: Sequence[Row], percentile: int) -> str:
    """Plot nDCG@10 against a percentile (50, 95 or 99) of a query's milliseconds, with the Pareto front."""
    column = PERCENTILES.index(percentile)
    latency = [max(row.ms["total"][column], _SMALLEST_MS) for row in rows]
    quality = [row.quality[COMPARED_BY] for row in rows]
    front = pareto_front(list(zip(latency, quality, strict=True)))
    height = _HEIGHT + 18 * max(0, len(rows) - _NAMES_OF_HEIGHT)
    label = f"{COMPARED_BY} against p{percentile} of a query's latency, {len(rows)} pipelines"
    with drawing(_WIDTH, height, label) as plot:
        axes = plot.add_axes(_LEFT, _RIGHT, _TOP, _BOTTOM)
        scale_logarithmic(axes, "x", latency)
        scale_linear(axes, "y", quality, _MOST_TICKS_UP, from_zero=False)
        axes.set_xlabel(f"p{percentile} of a query, ms (logarithmic)")
        axes.set_title(COMPARED_BY)
        steps = [latency[number] for number in front], [quality[number] for number in front]
        axes.step(*steps, where="post", color=COLOURS["front"], linestyle=(0, (6, 4)), linewidth=1.5)
        # Points on the front get their names first, and so nearest.
        order = sorted(range(len(rows)), key=lambda number: number not in front)
        points = axes.transData.transform(np.column_stack([latency, quality]))
        _write_names(plot, axes, points[order], [rows[number].label for number in order])
        for number, row in enumerate(rows):
            at, figures = (latency[number], quality[number]), _figures(row)
            if number in front:
                tooltip = f"{figures}; on the Pareto front"
                _draw_marker(plot, axes, at, "D", "front", hollow=False, tooltip=tooltip)
            else:
                _draw_marker(plot, axes, at, "o", "muted", hollow=True, tooltip=figures)
        return plot.svg()


def _draw_marker(
    plot: Drawing, axes: Axes, at: tuple[float, float], shape: str, colour: str, *, hollow: bool, tooltip: str
) -> None:
    face = COLOURS["paper" if hollow else colour]
    marker = axes.scatter(*at, 60, marker=shape, facecolor=face, edgecolor=COLOURS[colour], linewidth=2, zorder=3)
    plot.mark(marker, "marker", tooltip)


def _figures(row: Row) -> str:
    percentiles = ", ".join(f"p{n} {ms:,.1f} ms" for n, ms in zip(PERCENTILES, row.ms["total"], strict=True))
    return f"{row.label}: {COMPARED_BY} {row.quality[COMPARED_BY]:.3f}, {percentiles}"


def _write_names(plot: Drawing, axes: Axes, points: NDArray[np.float64], names: Sequence[str]) -> None:
    """Write each name as near to its point as there is room, or not at all if there is none.

    Names are placed in their order, so the first ones are nearest.
    """
    area = np.array([_LEFT + 2, _BOTTOM + 2, _WIDTH, plot.height - _TOP])
    taken = np.hstack([points - _MARKER_RADIUS, points + _MARKER_RADIUS])
    for (x, y), name in zip(points, (shortened(name, _LONGEST_NAME) for name in names), strict=True):
        for box, distance in _boxes_around(x, y, text_width(name), math.hypot(_WIDTH, plot.height)):
            inside = (box[:2] >= area[:2]).all() and (box[2:] <= area[2:]).all()
            if inside and not ((box[:2] < taken[:, 2:]) & (taken[:, :2] < box[2:])).all(axis=1).any():
                taken = np.vstack([taken, box])
                _write_name(plot, axes, name, (x, y), box, joined=distance > _MAX_UNJOINED_DISTANCE)
                break


def _write_name(
    plot: Drawing, axes: Axes, name: str, point: tuple[float, float], box: NDArray[np.float64], *, joined: bool
) -> None:
    left, bottom, right, top = map(float, box)
    # Anchored beside its point, so that the true width of the browser's font moves only the far end.
    anchor: Literal["left", "right", "center"]
    x, anchor = (left, "left") if left > point[0] else (right, "right")
    if left <= point[0] <= right:
        x, anchor = (left + right) / 2, "center"
    y = (bottom + top) / 2
    if joined:
        _draw_leader(axes, point, (x, y))
    _write(plot, axes, name, (x, y), anchor)


def _boxes_around(x: float, y: float, width: float, farthest: float) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Yield boxes for a name around a point (left, bottom, right, top), and their distance from it, nearest first."""
    distance = _MARKER_RADIUS + 2
    half = np.array([width, _NAME_HEIGHT]) / 2
    while distance < farthest:
        for degrees in _DIRECTIONS:
            direction = np.array([math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))])
            middle = (x, y) + direction * (distance + half)
            yield np.concatenate([middle - half, middle + half]), distance
        distance += 8


def _draw_leader(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    (line,) = axes.plot(*zip(start, end, strict=True), color=COLOURS["edge"], linewidth=0.8)
    line.set_transform(IdentityTransform())


def _write(
    plot: Drawing, axes: Axes, name: str, at: tuple[float, float], anchor: Literal["left", "right", "center"]
) -> None:
    text = axes.text(*at, "name", ha=anchor, va="center", transform=IdentityTransform())
    plot.mark(text, "name", text=name)


def latency_by_candidates(series: Sequence[Series]) -> str:
    """Plot p50 and p95 of a query's milliseconds against the number of candidates."""
    lines = [
        _Line(number, single.name if column == 0 else f"{single.name}, p95", column == 1, _latency(column))
        for column in (0, 1)
        for number, single in enumerate(series)
    ]
    return _by_candidates(series, lines, "ms a query", from_zero=True)


def quality_by_candidates(series: Sequence[Series]) -> str:
    """Plot nDCG@10 against the number of candidates."""
    names = [single.name for single in series]
    lines = [_Line(number, name, False, lambda row: row.quality[COMPARED_BY]) for number, name in enumerate(names)]
    return _by_candidates(series, lines, COMPARED_BY, from_zero=False)


@dataclass(frozen=True)
class _Line:
    series: int
    name: str
    dashed: bool
    figure: _Figure


def _latency(column: int) -> _Figure:
    return lambda row: row.ms["total"][column]


def _by_candidates(series: Sequence[Series], lines: Sequence[_Line], title: str, *, from_zero: bool) -> str:
    height = max(_HEIGHT, _LINE_HEIGHT * len(lines) + _TOP + _BOTTOM)
    values = [line.figure(row) for line in lines for row in series[line.series].rows.values()]
    counts = [float(count) for single in series for count in single.rows]
    label = f"{title} against the number of candidates, {len(series)} pipelines"
    with drawing(_WIDTH, height, label) as plot:
        axes = plot.add_axes(_LEFT, _NAMES_WIDTH, _TOP, _BOTTOM)
        scale_linear(axes, "x", counts, round((_WIDTH - _LEFT - _NAMES_WIDTH) / _TICK_WIDTH), from_zero=True)
        scale_linear(axes, "y", values, _MOST_TICKS_UP, from_zero=from_zero)
        axes.set_xlabel("candidates reranked")
        axes.set_title(title)
        ends = [_draw_line(plot, axes, line, series[line.series]) for line in lines]
        _name_ends(plot, axes, ends, [line.name for line in lines])
        return plot.svg()


def _draw_line(plot: Drawing, axes: Axes, line: _Line, series: Series) -> tuple[float, float]:
    """Draw a line with a marker for each number of candidates, and return its end in pixels."""
    counts, values = list(series.rows), [line.figure(row) for row in series.rows.values()]
    number = line.series % len(_SHAPES)
    colour = f"s{number}"
    axes.plot(counts, values, color=COLOURS[colour], linewidth=2, linestyle=(0, (5, 4)) if line.dashed else "solid")
    for count, value, row in zip(counts, values, series.rows.values(), strict=True):
        tooltip = f"{count} candidates; {_figures(row)}"
        _draw_marker(plot, axes, (count, value), _SHAPES[number], colour, hollow=line.dashed, tooltip=tooltip)
    x, y = axes.transData.transform((counts[-1], values[-1]))
    return float(x), float(y)


def _name_ends(plot: Drawing, axes: Axes, ends: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    left = _WIDTH - _NAMES_WIDTH + 22
    heights = _spread([y for _, y in ends], _BOTTOM)
    for (x, y), name, height in zip(ends, names, heights, strict=True):
        _draw_leader(axes, (x + 8, y), (left - 4, height))
        _write(plot, axes, shortened(name, _WIDTH - left), (left, height), "left")


def _spread(wanted: Sequence[float], lowest: float) -> list[float]:
    """Return heights a line apart, in the order of those wanted, and none below `lowest`."""
    order = sorted(range(len(wanted)), key=lambda number: -wanted[number])
    heights = [0.0] * len(wanted)
    last = math.inf
    for number in order:
        last = heights[number] = min(wanted[number], last - _LINE_HEIGHT)
    limit = lowest
    for number in reversed(order):
        heights[number] = max(heights[number], limit)
        limit = heights[number] + _LINE_HEIGHT
    return heights


def bars(rows: Sequence[Row], values: Sequence[float | None], what: str, unit: str) -> str:
    """Plot horizontal bars, one per pipeline; a value that is ``None`` or not a number has a dash instead."""
    known = [None if value is None or math.isnan(value) else value for value in values]
    with drawing(_WIDTH, _bars_height(rows), f"{what} in {unit}, {len(rows)} pipelines") as plot:
        axes = _bar_axes(plot, rows, [value or 0.0 for value in known], f"{what}, {unit}", top=0.0)
        for number, (row, value) in enumerate(zip(rows, known, strict=True)):
            if value is not None:
                (bar,) = axes.barh(number, value, _BAR_SHARE, color=COLOURS["bar"])
                plot.mark(bar, "bar", f"{row.label}: {what} {value:,.1f} {unit}")
            _write_figure(axes, number, value)
        return plot.svg()


def stacked_stages(rows: Sequence[Row]) -> str:
    """Plot the median of each stage's milliseconds, stacked, with the median of the total behind them."""
    totals = [sum(row.ms[stage][0] for stage in STAGES) for row in rows]
    what = "median of each stage of a query"
    with drawing(_WIDTH, _bars_height(rows) + _LEGEND_HEIGHT, f"{what} in ms, {len(rows)} pipelines") as plot:
        axes = _bar_axes(plot, rows, totals, f"{what}, ms", top=_LEGEND_HEIGHT)
        legend: dict[str, Artist] = {}
        for number, row in enumerate(rows):
            end = 0.0
            for stage in STAGES:
                median = row.ms[stage][0]
                (bar,) = axes.barh(number, median, _BAR_SHARE, end, facecolor=COLOURS[stage], hatch=_HATCHES[stage])
                bar.set(edgecolor=COLOURS["ink"], linewidth=0.6)
                plot.mark(bar, "bar", f"{row.label}: {stage} p50 {median:,.2f} ms")
                legend[stage] = bar
                end += median
            _write_figure(axes, number, end, row.ms["total"][0])
        axes.legend(
            legend.values(), legend, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, ncols=len(STAGES)
        )
        return plot.svg()


def _bars_height(rows: Sequence[Row]) -> float:
    return _BAR_HEIGHT * len(rows) + _BARS_TOP + _BARS_BOTTOM


def _bar_axes(plot: Drawing, rows: Sequence[Row], values: Sequence[float], what: str, *, top: float) -> Axes:
    """Return axes for bars of these lengths, with the name of each row before its bar."""
    names = [shortened(row.label, _LONGEST_NAME) for row in rows]
    left = max(text_width(name) for name in names) + 16
    axes = plot.add_axes(left, _FIGURE_WIDTH, _BARS_TOP + top, _BARS_BOTTOM)
    scale_linear(axes, "x", values, round((_WIDTH - left - _FIGURE_WIDTH) / _TICK_WIDTH), from_zero=True)
    axes.set(xlabel=what, yticks=[], ylim=(len(rows) - 0.5, -0.5))
    axes.spines.bottom.set_visible(False)
    middles = axes.transData.transform([(0, number) for number in range(len(rows))])
    for name, (x, y) in zip(names, middles, strict=True):
        _write(plot, axes, name, (x - 8, y), "right")
    return axes


def _write_figure(axes: Axes, number: int, end: float | None, value: float | None = None) -> None:
    """Write the figure of a bar behind its end, with as many decimals as tell it from its likes."""
    value = end if value is None else value
    if value is None:
        text = "–"
    else:
        text = f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:,.2f}"
    behind = axes.annotate(text, (end or 0.0, number), (6, 0), textcoords="offset points", va="center")
    behind.set_color(COLOURS["muted"])
