"""Threads for work that is large enough to share, instead of numba's own layer, which concurrent callers break."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def workers() -> int:
    """Return the number of threads of the pool: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def in_parts(work: Callable[[int, int], None], size: int, smallest: int) -> None:
    """Call ``work(start, end)`` over ``range(size)`` in as many parts as there are threads.

    Parameters
    ----------
    work
        Must not hold the interpreter's lock for long, and must write only to its own part.
    smallest
        The smallest part, so that little work stays in the caller's thread.
    """
    if size < 2 * max(1, smallest):
        work(0, size)
        return
    parts = min(workers(), size // max(1, smallest))
    bounds = [size * part // parts for part in range(parts + 1)]
    others = [_pool(os.getpid()).submit(work, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    work(bounds[0], bounds[1])
    for other in others:
        other.result()


def turns() -> threading.BoundedSemaphore:
    """Return the semaphore that lets as many callers work at once as there are threads."""
    return _turns(os.getpid())


@functools.cache
def _turns(pid: int) -> threading.BoundedSemaphore:
    # One per process: in a forked child nobody releases what its parent's threads have acquired.
    del pid
    return threading.BoundedSemaphore(workers())


@functools.cache
def _pool(pid: int) -> ThreadPoolExecutor:
    # One per process: a forked child has none of its parent's threads.
    del pid
    return ThreadPoolExecutor(workers(), thread_name_prefix="plaid")
