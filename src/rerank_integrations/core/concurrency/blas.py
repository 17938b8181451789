"""One thread for each of NumPy's matrix products, while they are small.

After a product on several threads OpenBLAS lets them spin for milliseconds, on the cores that torch needs to encode the
next query. Measured on two cores, a search of 300 passages took 25 ms like that and 15 ms with one thread. With other
processes on the same cores it took 600 ms and 41 ms.
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
# The limit that is in force, which can put the number of threads back.
_limits: list[Any] = []


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit NumPy's BLAS to one thread, and put the number back afterwards."""
    # The number belongs to the process, and whoever sets it must put it back: so one caller at a time sets it, and
    # none waits. The others share its setting. If it ends before they do, they are no worse off than without it.
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
                with contextlib.suppress(ValueError):  # in a child that this thread has forked meanwhile
                    _limits.remove(limits)
    finally:
        turn.release()


def _renew() -> None:
    """Put back the number of threads in a forked child, which lacks the parent's thread that would have done it."""
    global _turn
    _turn = threading.Lock()
    while _limits:
        _limits.pop().restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()
