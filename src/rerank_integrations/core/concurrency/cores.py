"""Forward passes on threads of their own: one for queries, one for short queries, one for passages, several for many.

Torch keeps a team of OpenMP threads for each thread that calls it, and a team spins for milliseconds after its work:
with 32 callers on two cores the teams take the cores from one another (figures: ``python benchmarks/concurrency.py``).
One calling thread means one team. Calls are served in the order they come, and a query waits for queries alone.

The thread of short queries has no team: waking another core and waiting for it would take longer. Several batches of
passages run side by side, each on a core of its own: the cores of a team wait for one another at every layer.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")

ALONE = "alone"
_SIDE_BY_SIDE = "side-by-side"
# More threads than these would wait for the interpreter's lock.
_MOST = 8
# Multiply-adds up to which one core is sooner done than two: 64 tokens through the 11 million weights of MiniLM.
_LITTLE = 7e8


def lane_for(lane: str, multiply_adds: float) -> str:
    """Return the lane for so much work that would otherwise be done on `lane`."""
    return ALONE if multiply_adds <= _LITTLE else lane


def on_compute_thread(lane: str, work: Callable[[], T]) -> T:
    """Run `work` on the thread of `lane` and return its result, or raise what it raised."""
    return _submitted(lane, work).result()


def side_by_side() -> int:
    """Return on how many threads `in_parallel` works: one a core that torch uses, and at most 8."""
    import torch

    return min(torch.get_num_threads(), _MOST)


def in_parallel(works: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Run `works` side by side and yield their results in order; each is taken when one before it is about to end.

    When one raises, or the caller stops, nothing more is begun; what is at work is waited for.
    """
    running: deque[Future[T]] = deque()
    at_once = side_by_side() + 1  # one waits for its turn
    try:
        for work in works:
            if len(running) == at_once:
                yield running.popleft().result()
            running.append(_submitted(_SIDE_BY_SIDE, work))
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
        wait(running)


def _submitted(lane: str, work: Callable[[], T]) -> Future[T]:
    # By process too: a fork copies the executor, but not its thread.
    key = lane, os.getpid()
    # Of several callers who come first at once, one's is kept; the others' have no thread yet.
    pool = _lanes.get(key) or _lanes.setdefault(key, _opened(*key))
    # A worker lets go of its item some time after the caller has the result: the item must not hold the work then.
    waiting = [work]
    return pool.submit(lambda: waiting.pop()())


_lanes: dict[tuple[str, int], ThreadPoolExecutor] = {}


def _opened(lane: str, pid: int) -> ThreadPoolExecutor:
    prefix = f"rerank-integrations-{lane}-{pid}"
    if lane == _SIDE_BY_SIDE:
        return ThreadPoolExecutor(side_by_side(), prefix, _with_its_share)
    return ThreadPoolExecutor(1, prefix, _without_team if lane == ALONE else None)


def _with_its_share() -> None:
    import torch

    _with_team(torch.get_num_threads() // side_by_side())


def _without_team() -> None:
    _with_team(1)


def _with_team(size: int) -> None:
    """Let the calling thread compute with so many cores, itself included, and no other thread with more or fewer."""
    import torch

    # Asked first: a thread takes the process's number when it is asked for its own, once.
    torch.get_num_threads()
    # Not by torch.set_num_threads, which takes it for the process's number too; OpenMP's is the thread's own.
    ThreadpoolController().limit(limits=size, user_api="openmp")
