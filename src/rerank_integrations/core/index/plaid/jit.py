"""Compiling the inner loops with numba, once a machine."""

from __future__ import annotations

import contextlib
from typing import Any

import numba


def inlined(function: Any) -> Any:
    """Compile as a part of the loops that call it."""
    part: Any = numba.njit(
        nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)
    return part


def called(function: Any) -> Any:
    """Compile as a function of its own that the loops call; Python code cannot."""
    part: Any = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return part


def compiled(function: Any) -> Any:
    """Compile at the first call, without the interpreter's lock; kept for other processes where a folder can be."""
    loop: Any = numba.njit(nogil=True, error_model="numpy")(function)
    # Without a folder to write to, each process compiles for itself.
    with contextlib.suppress(RuntimeError):
        loop.enable_caching()
    return loop
