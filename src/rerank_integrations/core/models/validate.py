"""Argument checks that both models share."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rerank_integrations.errors import InvalidInputError


def require_texts(texts: Sequence[str], name: str = "text") -> None:
    """Raise `InvalidInputError` unless `texts` is a sequence of strings (not one string) that UTF-8 can write."""
    if isinstance(texts, str):
        raise InvalidInputError(f"{name}s is one string, {texts[:40]!r}; expected a list of strings")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} number {place} is of type {type(text).__name__}; expected str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # Tokenizers and SQLite take UTF-8 only, and say so less clearly.
            raise InvalidInputError(f"{name} number {place} is not valid Unicode: {error}") from error


def require_length(value: int, name: str, least: int) -> int:
    """Return `value`, or raise `InvalidInputError` unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return value


def require_seconds(value: float | None, name: str) -> float | None:
    """Return `value`, or raise `InvalidInputError` unless it is ``None`` or a finite number from 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise InvalidInputError(f"{name} is {value!r}; expected a number of seconds from 0, or None for never")
    return float(value)
