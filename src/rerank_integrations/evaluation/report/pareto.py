"""Which pipelines no other one beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other point beats, by rising cost.

    Parameters
    ----------
    points
        Cost, lower is better, and quality, higher is better. One point beats another if it is as good in both and
        better in one; equal points do not beat each other.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front
