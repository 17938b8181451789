"""Forward passes on threads of their own, one for queries and one for passages.

Torch keeps a team of OpenMP threads for each thread that calls it, and a team spins for milliseconds after its work:
with 32 callers on two cores the teams take the cores from one another (figures: ``python benchmarks/concurrency.py``).
One calling thread means one team. Calls are served in the order they come, and a query waits for queries alone.

What is little work has a third thread, without a team: waking another core and waiting for it would take longer.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

ALONE = "alone"
# Multiply-adds up to which one core is sooner done than two: 64 tokens through the 11 million weights of MiniLM.
_LITTLE = 7e8


def lane_for(lane: str, multiply_adds: float) -> str:
    """Return the lane for so much work that would otherwise be done on `lane`."""
    return ALONE if multiply_adds <= _LITTLE else lane


def on_compute_thread(lane: str, work: Callable[[], T]) -> T:
    """Run `work` on the thread of `lane` and return its result, or raise what it raised."""
    return _lane(lane, os.getpid()).submit(work).result()


@functools.cache
def _lane(lane: str, pid: int) -> ThreadPoolExecutor:
    # By process too: a fork copies the executor, but not its thread.
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"rerank-integrations-{lane}-{pid}")
    if lane == ALONE:
        _without_team(pool)
    return pool


def _without_team(pool: ThreadPoolExecutor) -> None:
    import torch

    def alone() -> None:
        # Asked first: a thread takes the process's number when it is asked for its own, once.
        torch.get_num_threads()
        torch.set_num_threads(1)

    count = torch.get_num_threads()
    pool.submit(alone).result()
    # Torch has also taken it for the process's number.
    torch.set_num_threads(count)
