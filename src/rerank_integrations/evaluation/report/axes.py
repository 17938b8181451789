"""Scales with round ticks, linear and logarithmic, and the frame of a plot that they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_integrations.evaluation.report.svg import Element, add

# Ticks of an axis stand at least so far apart, in the drawing's units.
_APART_ACROSS = 48
_APART_UP = 30
# What a logarithmic axis shows instead of 0.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class Scale:
    """Values to places in a drawing.

    Parameters
    ----------
    ticks
        Rising; the first and the last are the ends of the axis.
    start, end
        Their places in the drawing.
    """

    ticks: tuple[float, ...]
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = self.ticks[0], self.ticks[-1], value
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, _SMALLEST))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """The area of a plot between two axes."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        return self.x.at(x), self.y.at(y)


def linear(values: Sequence[float], start: float, end: float, *, from_zero: bool) -> Scale:
    """Return a scale that holds all values, which are 0 or more."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high <= low:
        low, high = (0.0, 1.0) if high == 0 else (0.9 * low, 1.1 * high)
    apart = _APART_ACROSS if end > start else _APART_UP
    step = _round_step((high - low) / max(2, abs(end - start) / apart - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(tuple(step * number for number in range(first, last + 1)), start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a scale that holds all values, which are 0 or more; 0 is shown as a very small value."""
    low, high = max(min(values), _SMALLEST), max(*values, _SMALLEST)
    for digits, decades in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 4)):
        exponents = range(math.floor(math.log10(low)) // decades * decades, math.ceil(math.log10(high)) + 5, decades)
        marks = [digit * 10.0**exponent for exponent in exponents for digit in digits]
        first = max(place for place, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
        last = min(place for place, mark in enumerate(marks) if mark >= high * (1 - 1e-9))
        scale = Scale(tuple(marks[first : max(last, first + 1) + 1]), start, end, log=True)
        places = [scale.at(mark) for mark in scale.ticks]
        if min(abs(b - a) for a, b in itertools.pairwise(places)) >= _APART_ACROSS:
            break
    return scale


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def draw_frame(svg: Element, frame: Frame, x_title: str, y_title: str) -> None:
    """Draw grid lines, ticks, their figures and the titles of both axes."""
    left, right, bottom, top = frame.x.start, frame.x.end, frame.y.start, frame.y.end
    for tick, text in zip(frame.x.ticks, tick_texts(frame.x), strict=True):
        x = frame.x.at(tick)
        add(svg, "line", class_="grid", x1=x, x2=x, y1=bottom, y2=top)
        add(svg, "text", text, class_="tick", x=x, y=bottom + 18, text_anchor="middle")
    for tick, text in zip(frame.y.ticks, tick_texts(frame.y), strict=True):
        y = frame.y.at(tick)
        add(svg, "line", class_="grid", x1=left, x2=right, y1=y, y2=y)
        add(svg, "text", text, class_="tick", x=left - 8, y=y + 4, text_anchor="end")
    add(svg, "path", class_="axis", d=f"M{left:.2f},{top:.2f}V{bottom:.2f}H{right:.2f}")
    add(svg, "text", x_title, class_="title", x=(left + right) / 2, y=bottom + 40, text_anchor="middle")
    add(svg, "text", y_title, class_="title", x=left - 46, y=top - 14)


def tick_texts(scale: Scale) -> list[str]:
    """Return the figures of an axis: linear ones with as many decimals each, logarithmic ones with those they have."""
    if scale.log:
        return [f"{tick:,.10g}" for tick in scale.ticks]
    decimals = max(0, -math.floor(math.log10(scale.ticks[1] - scale.ticks[0]) + 1e-9))
    return [f"{tick:,.{decimals}f}" for tick in scale.ticks]
