"""NumPy's matrix products on one thread each, while they are small.

After a product on several threads OpenBLAS keeps them spinning for milliseconds, on the cores that torch needs for the
next query's encoding. Measured on two cores, a search of 300 passages took 25 ms like that and 15 ms with one thread;
with other processes on the same cores, 600 ms and 41 ms.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_turn = threading.Lock()
# Who has the turn, with what puts the number of threads back.
_limits: list[Any] = []


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy's BLAS take one thread, and put back what was."""
    # The number is the process's, and who sets it must put it back: so one caller at a time, and none waits. The
    # others share its setting, and are no worse off than without if it ends before they do.
    turn = _turn
    if not turn.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas") as limits:
            _limits.append(limits)
            try:
                yield
            finally:
                with contextlib.suppress(ValueError):  # a child that this thread has forked meanwhile
                    _limits.remove(limits)
    finally:
        turn.release()


def _renew() -> None:
    """Put back what a thread of the parent would have put back, which a forked child does not have."""
    global _turn
    _turn = threading.Lock()
    while _limits:
        _limits.pop().restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()
