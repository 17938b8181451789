"""Numbers from callers: Python's own and NumPy's, never bools."""

from __future__ import annotations

import math
import numbers
from typing import Any

from rerank_integrations.errors import InvalidInputError


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """Return `value` as a Python int, or raise `InvalidInputError` unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def is_number(value: Any) -> bool:
    """Return whether `value` is a real number, infinity too, but neither NaN nor a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)
