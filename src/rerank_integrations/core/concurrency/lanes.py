"""Our own threads for work that is large enough to share: never numba's layer, which concurrent callers break."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def workers() -> int:
    """Return how many threads the pool has: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def in_parts(work: Callable[[int, int], None], size: int, smallest: int) -> None:
    """Call ``work(start, end)`` over ``range(size)`` in as many parts as there are threads.

    Parameters
    ----------
    work
        Holds no lock on the interpreter for long; writes only what belongs to its own part.
    smallest
        Parts are no smaller, so that little work stays in the caller's thread.
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
    """Return what lets as many callers work at once as there are threads."""
    return _turns(os.getpid())


@functools.cache
def _turns(pid: int) -> threading.BoundedSemaphore:
    # By process too: in a child nobody gives back what its parent's threads hold.
    del pid
    return threading.BoundedSemaphore(workers())


@functools.cache
def _pool(pid: int) -> ThreadPoolExecutor:
    # By process: a forked child has none of its parent's threads.
    del pid
    return ThreadPoolExecutor(workers(), thread_name_prefix="plaid")
