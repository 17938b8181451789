"""NumPy's matrix products on one thread each, while they are small.

After a product on several threads OpenBLAS keeps them spinning for milliseconds, on the cores that torch needs for the
next query's encoding. Measured on two cores, a search of 300 passages took 25 ms like that and 15 ms with one thread;
with other processes on the same cores, 600 ms and 41 ms.
"""

from __future__ import annotations

import functools
import threading
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class _OneThread:
    """A context in which BLAS takes one thread; any number of threads may be inside, at any depth."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        # The number of threads is the process's: the first one in sets it, the last one out puts it back.
        with self._lock:
            if self._inside == 0:
                self._limit = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()


one_thread = _OneThread()
