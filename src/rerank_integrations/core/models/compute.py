"""Forward passes on threads of their own: one for queries, one for passages, and one for short queries.

Torch keeps a team of OpenMP threads for each thread that calls it, and a team spins for milliseconds after its work:
with 32 callers on two cores the teams take the cores from one another (figures: ``python benchmarks/concurrency.py``).
One calling thread means one team. Calls are served in the order they come, and a query waits for queries alone.

The thread of short queries has no team: waking another core and waiting for it would take longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")

ALONE = "alone"
# Multiply-adds up to which one core is sooner done than two: 64 tokens through the 11 million weights of MiniLM.
_LITTLE = 7e8


def lane_for(lane: str, multiply_adds: float) -> str:
    """Return the lane for so much work that would otherwise be done on `lane`."""
    return ALONE if multiply_adds <= _LITTLE else lane


def on_compute_thread(lane: str, work: Callable[[], T]) -> T:
    """Run `work` on the thread of `lane` and return its result, or raise what it raised."""
    # By process too: a fork copies the executor, but not its thread.
    key = lane, os.getpid()
    # Of several callers who come first at once, one's is kept; the others' have no thread yet.
    pool = _lanes.get(key) or _lanes.setdefault(key, _opened(*key))
    # A worker lets go of its item some time after the caller has the result: the item must not hold the work then.
    waiting = [work]
    return pool.submit(lambda: waiting.pop()()).result()


_lanes: dict[tuple[str, int], ThreadPoolExecutor] = {}


def _opened(lane: str, pid: int) -> ThreadPoolExecutor:
    prefix = f"rerank-integrations-{lane}-{pid}"
    return ThreadPoolExecutor(1, thread_name_prefix=prefix, initializer=_without_team if lane == ALONE else None)


def _without_team() -> None:
    """Let the calling thread compute alone, and no other."""
    import torch

    # Asked first: a thread takes the process's number when it is asked for its own, once.
    torch.get_num_threads()
    # Not by torch.set_num_threads, which takes it for the process's number too; OpenMP's is the thread's own.
    ThreadpoolController().limit(limits=1, user_api="openmp")
