"""The only order, tie rule, cut and threshold of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rerank_integrations.errors import InvalidInputError


def best_first(
    scores: Sequence[float],
    tie_keys: Sequence[int] | Sequence[str],
    *,
    top_n: int | None = None,
    threshold: float | None = None,
) -> list[tuple[int, float]]:
    """Order positions by falling score, then by rising tie key; apply the threshold, then the cut.

    Raises
    ------
    InvalidInputError
        If a score is NaN, since no order holds with it.
    """
    for place, score in enumerate(scores):
        if math.isnan(score):
            raise InvalidInputError(f"the score of passage number {place} is NaN; expected a number")
    kept = [place for place, score in enumerate(scores) if threshold is None or score >= threshold]
    kept.sort(key=lambda place: (-scores[place], tie_keys[place]))
    return [(place, float(scores[place])) for place in kept[:top_n]]


def require_text(value: str, name: str) -> None:
    """Raise `InvalidInputError` unless `value` is a string with more than white space in it."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} is of type {type(value).__name__}; expected str")
    if not value.strip():
        raise InvalidInputError(f"{name} is {value!r}; expected some text")


def require_count(value: int, name: str) -> None:
    """Raise `InvalidInputError` unless `value` is a whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least 0")


def require_cut(top_n: int | None, threshold: float | None) -> None:
    """Raise `InvalidInputError` unless `top_n` is a count or ``None``, and `threshold` a number or ``None``."""
    if top_n is not None:
        require_count(top_n, "top_n")
    require_threshold(threshold)


def require_threshold(value: float | None) -> None:
    """Raise `InvalidInputError` unless `value` is ``None`` or a number."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidInputError(f"threshold is {value!r}; expected a number or None")
