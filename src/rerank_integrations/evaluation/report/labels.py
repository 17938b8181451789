"""Names beside their points, so that none covers another or a point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rerank_integrations.evaluation.report.svg import FONT, text_width

_MARKER = 8.0
_HEIGHT = FONT + 3.0
# Farther from its point than this, a name is joined to it by a line.
_NEAR = 14.0
_DIRECTIONS = (0, 180, 90, 270, 315, 45, 225, 135, 337, 22, 202, 157, 292, 67, 247, 112)


@dataclass(frozen=True)
class Box:
    """A rectangle, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two have an area in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class Label:
    """Where a name stands: its start, middle or end, as `anchor` says, and whether a line joins it to its point."""

    x: float
    y: float
    anchor: str
    joined: bool


def place_labels(points: Sequence[tuple[float, float]], names: Sequence[str], area: Box) -> list[Label | None]:
    """Return a place for each name, as near its point as there is room; ``None`` where there is none at all.

    Names are placed in their order: the first ones come to stand nearest.
    """
    taken = [Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    found: list[Label | None] = []
    for (x, y), name in zip(points, names, strict=True):
        label = None
        width = text_width(name)
        for middle_x, middle_y, distance in _around(x, y, width, math.hypot(area.right, area.bottom)):
            box = Box(middle_x - width / 2, middle_y - _HEIGHT / 2, middle_x + width / 2, middle_y + _HEIGHT / 2)
            if area.holds(box) and not any(box.meets(other) for other in taken):
                taken.append(box)
                label = _anchored(box, x, middle_y, joined=distance > _NEAR)
                break
        found.append(label)
    return found


def _anchored(box: Box, x: float, y: float, *, joined: bool) -> Label:
    # At the side of its point: how wide the browser's font really is then moves the far end alone.
    if box.left > x:
        return Label(box.left, y, "start", joined)
    return (
        Label(box.right, y, "end", joined) if box.right < x else Label((box.left + box.right) / 2, y, "middle", joined)
    )


def _around(x: float, y: float, width: float, farthest: float) -> Iterator[tuple[float, float, float]]:
    """Yield middles of a name around a point, and how far its edge is from it, nearest first."""
    distance = _MARKER + 2
    while distance < farthest:
        for degrees in _DIRECTIONS:
            across, down = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            yield x + across * (distance + width / 2), y + down * (distance + _HEIGHT / 2), distance
        distance += 8
