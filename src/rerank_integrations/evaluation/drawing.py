"""Matplotlib's drawings as SVG for an HTML page, whose style sheet gives them colours for light and dark screens."""

from __future__ import annotations

import io
import math
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

AxisName: TypeAlias = Literal["x", "y"]
FONT_SIZE = 13
# The width of a character in the widest of the usual sans-serif fonts, so that no font needs more room.
_CHARACTER_WIDTH = 8.3
# Colour variables of page.css, each with a colour that stands for it while matplotlib draws.
_NAMES = (
    *("paper", "ink", "muted", "grid", "edge", "front", "bar", "encode", "retrieve", "rerank"),
    *(f"s{number}" for number in range(6)),
)
COLOURS = {name: f"#{number:06x}" for number, name in enumerate(_NAMES, start=1)}
_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_STYLE = {
    "font.size": FONT_SIZE,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["edge"],
    "axes.labelpad": 6,
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 1,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLOURS["muted"],
    "axes.titlelocation": "left",
    "axes.titlesize": FONT_SIZE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    # Ticks have no marks, since the grid lines show their positions.
    "xtick.major.pad": 7,
    "xtick.major.size": 0,
    "xtick.color": COLOURS["muted"],
    "ytick.major.pad": 7,
    "ytick.major.size": 0,
    "ytick.color": COLOURS["muted"],
    # Text stays text, and the same plot gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "rerank-integrations",
}
# Matplotlib's settings are those of the whole process, so only one drawing at a time may change them.
_DRAWING = threading.Lock()
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_MOST_LOG_TICKS = 11
_TICKS_OF_DECADES = (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 4))


@dataclass(frozen=True)
class _Mark:
    css_class: str
    tooltip: str | None
    text: str | None


class Drawing:
    """A figure of a size in pixels, with a `label` for screen readers."""

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width: float = width
        self.height: float = height
        self._label = label
        self.figure: Figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)
        self._marks: dict[str, _Mark] = {}

    def add_axes(self, left: float, right: float, top: float, bottom: float) -> Axes:
        """Return axes with these margins, in pixels."""
        width, height = self.width - left - right, self.height - top - bottom
        rectangle = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(rectangle)
        axes.patch.set_visible(False)
        return axes

    def mark(self, artist: Artist, css_class: str, tooltip: str | None = None, text: str | None = None) -> None:
        """Give an artist a class, a tooltip, and a text in place of the one that matplotlib draws.

        Names are inserted only after drawing, because matplotlib's font has no Chinese characters, and because text
        between dollar signs would be read as mathematics.
        """
        key = f"mark-{len(self._marks)}"
        artist.set_gid(key)
        self._marks[key] = _Mark(css_class, tooltip, text)

    def svg(self) -> str:
        """Return the markup, well-formed as XML and as HTML."""
        for axes in self.figure.axes:
            for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
                self.mark(label, "tick")
            for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
                self.mark(line, "grid")
        for artist in self.figure.findobj():
            # Nothing lies outside the axes, and a clip path would need an identifier that is unique in the page.
            artist.set_clip_on(False)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self.figure.savefig(buffer, format="svg", metadata=no_metadata)
        root = ElementTree.fromstring(buffer.getvalue())
        _strip(root)
        self._put_marks(root)
        root.attrib = {
            "viewBox": f"0 0 {self.width:g} {self.height:g}",
            "role": "img",
            "aria-label": self._label,
            "stroke-linejoin": "round",
        }
        return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)

    def _put_marks(self, root: ElementTree.Element) -> None:
        for group in root.iter("g"):
            mark = self._marks.get(group.attrib.pop("id", ""))
            if mark is None:
                continue
            group.set("class", mark.css_class)
            if mark.text is not None:
                next(group.iter("text")).text = mark.text
            if mark.tooltip is not None:
                title = ElementTree.Element("title")
                title.text = mark.tooltip
                group.insert(0, title)


@contextmanager
def drawing(width: float, height: float, label: str) -> Iterator[Drawing]:
    """Open a drawing; all of it happens within the ``with`` block, whatever settings of matplotlib the process has."""
    with _DRAWING, matplotlib.style.context(["default", _STYLE]):
        yield Drawing(width, height, label)


def _strip(root: ElementTree.Element) -> None:
    """Make styles attributes, which a style sheet can replace, and take out what it decides: fonts and colours."""
    shapes = {f"#{path.get('id')}": path.get("d", "") for path in root.iterfind(f".//{_SVG}defs/{_SVG}path")}
    for parent in root.findall(f".//{_SVG}defs/.."):
        for definitions in parent.findall(f"{_SVG}defs"):
            if definitions.find(f"{_SVG}pattern") is None:
                parent.remove(definitions)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for declaration in element.attrib.pop("style", "").split(";"):
            name, _, value = (part.strip() for part in declaration.partition(":"))
            if name and not name.startswith("font"):
                element.set(name, value)
        for name, value in element.items():
            element.set(name, _VARIABLES.get(value, value))
        if element.tag == "use":
            # Shapes are written out, since their identifiers would be the same in several drawings of a page.
            element.tag = "path"
            element.set("d", shapes[element.attrib.pop(_HREF)])
            element.set("transform", f"translate({element.attrib.pop('x')},{element.attrib.pop('y')})")
        elif element.tag == "text":
            # This attribute only rotates by 0 degrees.
            element.attrib.pop("transform", None)


def scale_linear(axes: Axes, axis: AxisName, values: Sequence[float], most_ticks: int, *, from_zero: bool) -> None:
    """Scale an axis to values of 0 or more, from one round tick to another."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high <= low:
        low, high = (0.0, 1.0) if high == 0 else (0.9 * low, 1.1 * high)
    # Adding 0 makes a positive one of -0.
    ticks = np.asarray(MaxNLocator(most_ticks, steps=[1, 2, 5, 10]).tick_values(low, high)) + 0.0
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    _set_ticks(axes, axis, ticks, [f"{tick:,.{decimals}f}" for tick in ticks])


def scale_logarithmic(axes: Axes, axis: AxisName, values: Sequence[float]) -> None:
    """Scale an axis to values above 0, from one round tick to another."""
    low, high = min(values) * (1 + 1e-9), max(values) * (1 - 1e-9)
    for digits, decades in _TICKS_OF_DECADES:
        first = math.floor(math.log10(low)) // decades * decades
        exponents = np.arange(first, math.ceil(math.log10(high)) + decades + 1, decades)
        marks = np.outer(10.0**exponents, digits).ravel()
        start = np.flatnonzero(marks <= low)[-1]
        end = max(np.flatnonzero(marks >= high)[0], start + 1)
        ticks = marks[start : end + 1]
        if len(ticks) <= _MOST_LOG_TICKS:
            break
    axes.set(**{f"{axis}scale": "log"})
    axes.minorticks_off()
    _set_ticks(axes, axis, ticks, [f"{tick:,.10g}" for tick in ticks])


def _set_ticks(axes: Axes, axis: AxisName, ticks: NDArray[np.float64], texts: Sequence[str]) -> None:
    axes.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": texts, f"{axis}lim": (ticks[0], ticks[-1])})


def text_width(text: str) -> float:
    """Estimate the width of a text in pixels; a browser's own fonts are not known here."""
    return sum(_CHARACTER_WIDTH * (1.8 if unicodedata.east_asian_width(sign) in "WF" else 1) for sign in text)


def shortened(text: str, width: float) -> str:
    """Return the text, cut and with an ellipsis where it is wider."""
    if text_width(text) <= width:
        return text
    while text and text_width(text) + _CHARACTER_WIDTH > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
