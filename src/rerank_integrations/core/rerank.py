"""The only order, tie rule, cut and threshold of the package."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rerank_integrations.core.types import Hit, PassageLike, Scorer, iter_passages, to_passage
from rerank_integrations.errors import InvalidInputError


def rerank(
    query: str,
    passages: Iterable[PassageLike],
    scorer: Scorer,
    *,
    top_n: int | None = None,
    threshold: float | None = None,
) -> list[Hit]:
    """Score `passages` against `query` and return them best first, as new `Hit`s.

    Parameters
    ----------
    query
        Must hold more than white space.
    passages
        Strings, mappings, `Passage`s or `Hit`s; none of them is changed.
    scorer
        Anything with ``score(query, texts)``: a `ColBERTModel`, a `CrossEncoderModel`, your own.
    top_n
        How many to keep; ``None`` keeps all.
    threshold
        Keep only scores of at least this (inclusive).

    Returns
    -------
    list of Hit
        Best first. Passages of equal score keep the order they came in.

    Raises
    ------
    InvalidInputError
        For an empty query, a negative `top_n`, or a score that is not a number.
    """
    items = [to_passage(item) for item in iter_passages(passages)]
    order = rerank_order(query, [item.text for item in items], scorer, top_n=top_n, threshold=threshold)
    return [
        Hit(items[place].id, score, rank, items[place].text, dict(items[place].metadata))
        for rank, (place, score) in enumerate(order, start=1)
    ]


def rerank_order(
    query: str,
    texts: Sequence[str],
    scorer: Scorer,
    *,
    top_n: int | None = None,
    threshold: float | None = None,
) -> list[tuple[int, float]]:
    """Return ``(position in texts, score)`` best first: `rerank` for callers that keep their own objects."""
    require_text(query, "query")
    require_cut(top_n, threshold)
    if not texts or top_n == 0:
        return []
    given = scorer.score(query, list(texts))
    try:
        scores = [float(score) for score in given]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the scorer gave {given!r}; expected a list of numbers") from error
    if len(scores) != len(texts):
        raise InvalidInputError(f"the scorer gave {len(scores)} scores for {len(texts)} texts; expected one each")
    return best_first(scores, range(len(scores)), top_n=top_n, threshold=threshold)


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
