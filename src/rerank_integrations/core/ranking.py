"""The order of scores: the only tie rule, cut and threshold of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.checks import is_number, whole_number
from rerank_integrations.errors import InvalidInputError


def score_of_best(scores: Sequence[NDArray[np.float64]], count: int) -> float:
    """Return the `count`-th best score over several arrays; minus infinity if they have no more than `count`."""
    together = scores[0] if len(scores) == 1 else np.concatenate([np.empty(0), *scores])
    if len(together) <= count:
        return -np.inf
    position = len(together) - count
    return float(np.partition(together, position)[position])


def best_first(
    scores: Sequence[float],
    tie_keys: Sequence[int] | Sequence[str],
    *,
    top_n: int | None = None,
    threshold: float | None = None,
    keys: Sequence[tuple[float, ...]] | None = None,
) -> list[tuple[int, float]]:
    """Order positions by falling score, then by rising tie key; apply the threshold, then the cut.

    Parameters
    ----------
    keys
        Order by these where the scores are rounded. The threshold applies to the scores.

    Raises
    ------
    InvalidInputError
        If a score is NaN, which has no place in any order.
    """
    for position, score in enumerate(scores):
        if math.isnan(score):
            raise InvalidInputError(f"the score of passage number {position} is NaN; expected a number")
    order = [position for position, score in enumerate(scores) if threshold is None or score >= threshold]
    if keys is None:
        order.sort(key=lambda position: (-scores[position], tie_keys[position]))
    else:
        order.sort(key=lambda position: (tuple(-number for number in keys[position]), tie_keys[position]))
    return [(position, float(scores[position])) for position in order[:top_n]]


def require_text(value: str, name: str) -> None:
    """Raise `InvalidInputError` unless `value` is a string with more than white space."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is of type {type(value).__name__}; expected str")
    if not value.strip():
        raise InvalidInputError(f"{name} is {value!r}; expected some text")


def require_count(value: int, name: str) -> int:
    """Return `value` as a Python int, or raise `InvalidInputError` unless it is a whole number of at least 0."""
    return whole_number(value, name)


def require_cut(top_n: int | None, threshold: float | None) -> tuple[int | None, float | None]:
    """Return both as Python numbers; raise `InvalidInputError` unless they are a count and a number, or ``None``."""
    return None if top_n is None else require_count(top_n, "top_n"), require_threshold(threshold)


def require_threshold(value: float | None, name: str = "threshold") -> float | None:
    """Return `value` as a Python float, or raise `InvalidInputError`, with its `name`, unless ``None`` or a number."""
    if value is None:
        return None
    if not is_number(value):
        raise InvalidInputError(f"{name} is {value!r}; expected a number or None")
    return float(value)
