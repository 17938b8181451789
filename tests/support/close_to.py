"""Equality up to float32 rounding: its last bits depend on the processor and on the alignment of arrays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

# Relative, and for numbers near 0 absolute; float32 has 6e-8, and a score adds some hundred products.
ROUNDING = 1e-5


def close_to(found: Any, expected: Any) -> bool:
    """Return whether both have equal types, lengths, keys and values, with floats equal up to rounding."""
    if isinstance(expected, np.ndarray):
        return found.shape == expected.shape and np.allclose(found, expected, rtol=ROUNDING, atol=ROUNDING)
    if type(found) is not type(expected):
        return False
    if isinstance(expected, float):
        return found == expected or math.isclose(found, expected, rel_tol=ROUNDING, abs_tol=ROUNDING)
    if dataclasses.is_dataclass(expected):
        names = [field.name for field in dataclasses.fields(expected)]
        return all(close_to(getattr(found, name), getattr(expected, name)) for name in names)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(close_to(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(close_to, found, expected))
    return bool(found == expected)
