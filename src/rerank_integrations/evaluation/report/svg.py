"""SVG as a tree of elements: what is text in it is escaped when it is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from xml.etree import ElementTree

Element = ElementTree.Element
# In units of the drawing, which are pixels where it is shown in full size.
FONT = 13
# As wide as the widest of the usual sans-serif fonts, so that none has less room than it needs.
_CHARACTER = 8.3


def drawing(width: float, height: float, label: str, top: float = 0.0) -> Element:
    """Return an empty drawing from `top` on; `label` is what a screen reader says of it."""
    return Element("svg", {"viewBox": f"0 {top:g} {width:g} {height - top:g}", "role": "img", "aria-label": label})


def add(parent: Element, tag: str, text: str | None = None, **attributes: str | float) -> Element:
    """Add an element; ``text_anchor`` is the attribute ``text-anchor``, ``class_`` is ``class``."""
    named = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.2f}"
        for name, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, tag, named)
    element.text = text
    return element


def group(parent: Element, title: str, class_: str) -> Element:
    """Add a group that shows a title to a pointer over it."""
    element = add(parent, "g", class_=class_)
    add(element, "title", title)
    return element


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the ``d`` of straight lines through points."""
    return "M" + "L".join(f"{x:.2f},{y:.2f}" for x, y in points)


def written(element: Element) -> str:
    """Return the markup, well-formed as XML and as HTML."""
    return ElementTree.tostring(element, encoding="unicode", short_empty_elements=False)


def text_width(text: str) -> float:
    """Return how wide a text is, about: a browser's own fonts are not known here."""
    return sum(_CHARACTER * (1.8 if unicodedata.east_asian_width(sign) in "WF" else 1) for sign in text)


def shortened(text: str, width: float) -> str:
    """Return the text, cut and with an ellipsis where it is wider."""
    if text_width(text) <= width:
        return text
    while text and text_width(text) + _CHARACTER > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
