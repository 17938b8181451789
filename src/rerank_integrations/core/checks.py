"""Checks of arguments: texts, and numbers of Python and NumPy, which are never bools."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
from typing import TypeGuard

from rerank_integrations.errors import InvalidInputError


def require_texts(texts: Sequence[str], name: str = "text") -> None:
    """Raise `InvalidInputError` unless `texts` is a sequence of strings (not one string) that UTF-8 can encode."""
    if isinstance(texts, str):
        several = "queries" if name == "query" else f"{name}s"
        raise InvalidInputError(f"{several} is one string, {texts[:40]!r}; expected a list of strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} number {number} is of type {type(text).__name__}; expected str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # Tokenizers and SQLite accept only UTF-8, and report it less clearly.
            raise InvalidInputError(f"{name} number {number} is not valid Unicode: {error}") from error


def whole_number(value: object, name: str, least: int = 0) -> int:
    """Return `value` as a Python int, or raise `InvalidInputError` unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def require_bool(value: object, name: str) -> bool:
    """Return `value`, or raise `InvalidInputError` unless it is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is {value!r}; expected True or False")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a real number, infinity too, but neither NaN nor a bool."""
    # Only NaN differs from itself.
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value


def seconds(value: object, name: str) -> float:
    """Return `value` as a Python float, or raise `InvalidInputError` unless it is a finite number from 0."""
    if not is_number(value) or not 0 <= value <= sys.float_info.max:
        raise InvalidInputError(f"{name} is {value!r}; expected a number of seconds, 0 or more")
    return float(value)
