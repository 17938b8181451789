"""The Pareto front against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_integrations.evaluation.plots import pareto_front


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Few values, so that many are equal in cost, in quality or in both.
    points = [(float(cost), float(good)) for cost, good in random.integers(0, 2 + seed, (25, 2))]
    expected = {place for place, one in enumerate(points) if not any(beats(other, one) for other in points)}
    front = pareto_front(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[place][0] for place in front] == sorted(points[place][0] for place in front)


def test_no_points_have_no_front() -> None:
    assert pareto_front([]) == []
