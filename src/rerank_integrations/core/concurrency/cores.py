"""Threads for forward passes: one for queries, one for short queries, one for passages, and several for many passages.

Torch keeps a team of OpenMP threads for each thread that calls it, and a team spins for milliseconds after its work:
with 32 callers on two cores the teams take the cores from one another (figures: ``python benchmarks/concurrency.py``).
One calling thread means one team. Calls run in the order in which they arrive, and a query waits for queries alone.

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
# More threads than this would wait for the interpreter's lock.
_MAX_THREADS = 8
# Up to this many multiply-adds one core takes less time than two: 64 tokens through the 11 million weights of MiniLM.
_MAX_ALONE_MULTIPLY_ADDS = 7e8


def lane_for(lane: str, multiply_adds: float) -> str:
    """Return `lane`, or the lane without a team if that takes less time for this much work."""
    return ALONE if multiply_adds <= _MAX_ALONE_MULTIPLY_ADDS else lane


def on_compute_thread(lane: str, work: Callable[[], T]) -> T:
    """Run `work` on the thread of `lane` and return its result, or raise what it raised."""
    return _submitted(lane, work).result()


def side_by_side() -> int:
    """Return the number of threads of `in_parallel`: one per core that torch uses, and at most 8."""
    import torch

    return min(torch.get_num_threads(), _MAX_THREADS)


def in_parallel(works: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Run `works` side by side and yield their results in order; the iterable is read as threads become free.

    When a work raises, or the caller stops, no further work starts, and running work is waited for.
    """
    running: deque[Future[T]] = deque()
    at_once = side_by_side() + 1  # the last one waits for a thread
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
    # The process is part of the key: a fork copies the executor, but not its thread.
    key = lane, os.getpid()
    # Of several first callers at once, one executor is stored; the others have no thread yet.
    pool = _lanes.get(key) or _lanes.setdefault(key, _opened(*key))
    # A worker drops its item some time after the caller has the result, so the item must not refer to the work then.
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
    """Set the number of cores with which the calling thread computes, itself included, and of no other thread."""
    import torch

    # This call comes first, since a thread takes over the process's number at the first request for its own.
    torch.get_num_threads()
    # Not torch.set_num_threads, which sets the process's number too; OpenMP's number belongs to the thread.
    ThreadpoolController().limit(limits=size, user_api="openmp")
