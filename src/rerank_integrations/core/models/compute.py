"""Forward passes on threads of their own, one for queries and one for passages.

Torch keeps a team of OpenMP threads for each thread that calls it, and a team spins for milliseconds after its work:
with 32 callers on two cores the teams take the cores from one another (figures: ``python benchmarks/concurrency.py``).
One calling thread means one team. Calls are served in the order they come, and a query waits for queries alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def on_compute_thread(lane: str, work: Callable[[], T]) -> T:
    """Run `work` on the thread of `lane` and return its result, or raise what it raised."""
    return _lane(lane, os.getpid()).submit(work).result()


@functools.cache
def _lane(lane: str, pid: int) -> ThreadPoolExecutor:
    # By process too: a fork copies the executor, but not its thread.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"rerank-integrations-{lane}-{pid}")
