"""The plots of points and lines: quality against latency, and both against the number of candidates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from rerank_integrations.evaluation.report.axes import Frame, draw_frame, linear, logarithmic
from rerank_integrations.evaluation.report.candidates import Series
from rerank_integrations.evaluation.report.labels import Box, Label, place_labels
from rerank_integrations.evaluation.report.pareto import pareto_front
from rerank_integrations.evaluation.report.svg import Element, add, drawing, group, path, shortened
from rerank_integrations.evaluation.summary import COMPARED_BY, PERCENTILES, Row

_WIDTH = 640.0
_HEIGHT = 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 24.0, 44.0, 52.0
# Room for the names at the ends of lines.
_NAMES = 228.0
_LINE = 17.0
_LONGEST_NAME = 220.0
# So many names fit a plot of `_HEIGHT`; each one more makes it higher.
_FEW = 12
# Around the middle, 6 to each side: told apart by shape as well as by colour.
_SHAPES = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "M-5,-5H5V5H-5Z",
    "M0,-6L6,5H-6Z",
    "M0,-7L6,0L0,7L-6,0Z",
    "M0,6L6,-5H-6Z",
    "M-5,-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",
)
_CIRCLE, _DIAMOND = _SHAPES[0], _SHAPES[3]


def quality_against_latency(rows: Sequence[Row], percentile: int) -> Element:
    """Return a plot of nDCG@10 against a percentile (50, 95 or 99) of a query's milliseconds, with the Pareto front."""
    place = PERCENTILES.index(percentile)
    latency = [row.ms["total"][place] for row in rows]
    quality = [row.quality[COMPARED_BY] for row in rows]
    height = _HEIGHT + 18 * max(0, len(rows) - _FEW)
    frame = Frame(
        logarithmic(latency, _LEFT, _WIDTH - _RIGHT),
        linear(quality, height - _BOTTOM, _TOP, from_zero=False),
    )
    svg = drawing(_WIDTH, height, f"{COMPARED_BY} against p{percentile} of a query's latency, {len(rows)} pipelines")
    draw_frame(svg, frame, f"p{percentile} of a query, ms (logarithmic)", COMPARED_BY)
    points = [frame.at(x, y) for x, y in zip(latency, quality, strict=True)]
    front = pareto_front(list(zip(latency, quality, strict=True)))
    add(svg, "path", class_="front-line", d=_steps([points[number] for number in front]))
    # Those on the front get their names first, and so nearest.
    order = sorted(range(len(rows)), key=lambda number: number not in front)
    names = [shortened(rows[number].label, _LONGEST_NAME) for number in order]
    area = Box(_LEFT + 2, _TOP, _WIDTH, height - _BOTTOM - 2)
    labels = place_labels([points[number] for number in order], names, area)
    for number, name, label in zip(order, names, labels, strict=True):
        _draw_point(svg, rows[number], points[number], name, label, best=number in front)
    return svg


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Return the path of what quality is to be had up to each latency."""
    corners = [points[0]]
    for before, point in itertools.pairwise(points):
        corners += [(point[0], before[1]), point]
    return path(corners)


def _draw_point(svg: Element, row: Row, at: tuple[float, float], name: str, label: Label | None, *, best: bool) -> None:
    told = f"{_figures(row)}; on the Pareto front" if best else _figures(row)
    point = group(svg, told, "point front" if best else "point")
    if label is not None:
        if label.joined:
            add(point, "line", class_="leader", x1=at[0], y1=at[1], x2=label.x, y2=label.y)
        add(point, "text", name, class_="name", x=label.x, y=label.y + 4.5, text_anchor=label.anchor)
    _draw_shape(point, _DIAMOND if best else _CIRCLE, at)


def _draw_shape(parent: Element, shape: str, at: tuple[float, float]) -> None:
    add(parent, "path", class_="marker", d=shape, transform=f"translate({at[0]:.2f},{at[1]:.2f})")


def _figures(row: Row) -> str:
    percentiles = ", ".join(f"p{n} {ms:,.1f} ms" for n, ms in zip(PERCENTILES, row.ms["total"], strict=True))
    return f"{row.label}: {COMPARED_BY} {row.quality[COMPARED_BY]:.3f}, {percentiles}"


def latency_by_candidates(series: Sequence[Series]) -> Element:
    """Return a plot of p50 and p95 of a query's milliseconds against the number of candidates."""
    lines = [
        (number, one.name if place == 0 else f"{one.name}, p95", "p95" if place else "p50", _latency(place))
        for place in (0, 1)
        for number, one in enumerate(series)
    ]
    return _by_candidates(series, lines, "ms a query", from_zero=True)


def quality_by_candidates(series: Sequence[Series]) -> Element:
    """Return a plot of nDCG@10 against the number of candidates."""
    lines = [(number, one.name, "p50", lambda row: row.quality[COMPARED_BY]) for number, one in enumerate(series)]
    return _by_candidates(series, lines, COMPARED_BY, from_zero=False)


_Figure = Callable[[Row], float]


def _latency(place: int) -> _Figure:
    return lambda row: row.ms["total"][place]


def _by_candidates(
    series: Sequence[Series], lines: Sequence[tuple[int, str, str, _Figure]], y_title: str, *, from_zero: bool
) -> Element:
    height = max(_HEIGHT, _LINE * len(lines) + _TOP + _BOTTOM)
    values = [figure(row) for number, _, _, figure in lines for row in series[number].rows.values()]
    counts = [float(count) for one in series for count in one.rows]
    frame = Frame(
        linear(counts, _LEFT, _WIDTH - _NAMES, from_zero=True),
        linear(values, height - _BOTTOM, _TOP, from_zero=from_zero),
    )
    svg = drawing(_WIDTH, height, f"{y_title} against the number of candidates, {len(series)} pipelines")
    draw_frame(svg, frame, "candidates reranked", y_title)
    drawn = []
    for number, _, dash, figure in lines:
        points = [frame.at(count, figure(row)) for count, row in series[number].rows.items()]
        line = add(svg, "g", class_=f"series s{number % len(_SHAPES)} {dash}")
        add(line, "path", class_="line", d=path(points))
        for (count, row), at in zip(series[number].rows.items(), points, strict=True):
            point = group(line, f"{count} candidates; {_figures(row)}", "point")
            _draw_shape(point, _SHAPES[number % len(_SHAPES)], at)
        drawn.append(points[-1])
    _name_ends(svg, drawn, [name for _, name, _, _ in lines], height)
    return svg


def _name_ends(svg: Element, ends: Sequence[tuple[float, float]], names: Sequence[str], height: float) -> None:
    left = _WIDTH - _NAMES + 22
    heights = _spread([y for _, y in ends], height - _BOTTOM)
    for (x, y), name, at in zip(ends, names, heights, strict=True):
        add(svg, "line", class_="leader", x1=x + 8, y1=y, x2=left - 4, y2=at)
        add(svg, "text", shortened(name, _WIDTH - left), class_="name", x=left, y=at + 4.5)


def _spread(wanted: Sequence[float], lowest: float) -> list[float]:
    """Return heights a line apart, in the order of those wanted, and no farther down than `lowest`."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    found = [0.0] * len(wanted)
    last = -_LINE
    for number in order:
        last = found[number] = max(wanted[number], last + _LINE)
    limit = lowest
    for number in reversed(order):
        found[number] = min(found[number], limit)
        limit = found[number] - _LINE
    return found
