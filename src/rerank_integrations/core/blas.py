"""NumPy's matrix products on one thread each, while they are small.

After a product on several threads OpenBLAS keeps them spinning for milliseconds, on the cores that torch needs for the
next query's encoding. Measured on two cores, a search of 300 passages took 25 ms like that and 15 ms with one thread;
with other processes on the same cores, 600 ms and 41 ms.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_TURN = threading.Lock()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy's BLAS take one thread, and put back what was."""
    # The number is the process's, and who sets it must put it back: so one caller at a time, and none waits. The
    # others share its setting, and are no worse off than without if it ends before they do.
    if not _TURN.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _TURN.release()


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()
