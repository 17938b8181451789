"""Common batches: what waits together is computed together, and nobody suffers from another's error or end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from rerank_integrations.core.concurrency.cancel import GivenUpError, check_wanted
from rerank_integrations.server.batching import Batcher


class Doubling:
    """Work that doubles numbers once `gate` is set; negative ones fail."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.stopped = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        try:
            while not self.gate.wait(0.01):
                check_wanted()
        except GivenUpError:
            self.stopped.set()
            raise
        if min(jobs) < 0:
            raise ValueError(f"negative: {min(jobs)}")
        return [2 * job for job in jobs]


def batcher(work: Doubling, max_size: int = 100) -> Batcher[int, int]:
    return Batcher(work, size=abs, max_size=max_size)


async def started(work: Doubling, batches: int = 1) -> None:
    while len(work.batches) < batches:
        await asyncio.sleep(0.001)


async def submitted(queue: Batcher[int, int], *jobs: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(queue.submit(job)) for job in jobs]
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_during_a_batch_is_the_next_batch() -> None:
    work = Doubling()
    queue = batcher(work)
    first = await submitted(queue, 1)
    await started(work)
    others = await submitted(queue, 2, 3, 4)
    work.gate.set()
    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3, 4]]
    assert await queue.submit(5) == 10


async def test_a_batch_has_at_most_its_size_and_a_larger_job_is_one_of_its_own() -> None:
    work = Doubling()
    queue = batcher(work, max_size=5)
    first = await submitted(queue, 1)
    await started(work)
    others = await submitted(queue, 2, 3, 4, 9, 1)
    work.gate.set()
    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8, 18, 2]
    assert work.batches == [[1], [2, 3], [4], [9], [1]]


async def test_an_error_is_that_of_its_job_alone() -> None:
    work = Doubling()
    queue = batcher(work)
    first = await submitted(queue, 1)
    await started(work)
    others = await submitted(queue, 2, -3, 4)
    work.gate.set()
    results = await asyncio.gather(*first, *others, return_exceptions=True)
    assert [str(result) for result in results] == ["2", "4", "negative: -3", "8"]
    assert work.batches == [[1], [2, -3, 4], [2], [-3], [4]]


async def test_a_cancelled_job_leaves_the_queue() -> None:
    work = Doubling()
    queue = batcher(work)
    first = await submitted(queue, 1)
    await started(work)
    second, third = await submitted(queue, 2, 3)
    second.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*first, third) == [2, 6]
    assert work.batches == [[1], [3]]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_computing_stops_once_nobody_waits_for_the_batch() -> None:
    work = Doubling()
    queue = batcher(work)
    first = await submitted(queue, 1)
    await started(work)
    second, third = await submitted(queue, 2, 3)
    first[0].cancel()
    await started(work, 2)
    assert await asyncio.to_thread(work.stopped.wait, 60)
    work.stopped.clear()
    second.cancel()
    await asyncio.sleep(0.05)
    assert not work.stopped.is_set(), "somebody waits for the rest of the batch"
    work.gate.set()
    assert await third == 6
    assert work.batches == [[1], [2, 3]]


async def test_work_without_a_result_per_job_is_an_error_of_each() -> None:
    queue: Batcher[int, int] = Batcher(lambda jobs: [7], size=abs, max_size=100)
    first = await submitted(queue, 1)
    others = await submitted(queue, 2, 3)
    results = await asyncio.gather(*first, *others, return_exceptions=True)
    # Those of a failed batch are computed one by one, where one result is right.
    assert results == [7, 7, 7]
    empty: Batcher[int, int] = Batcher(lambda jobs: [], size=abs, max_size=100)
    with pytest.raises(RuntimeError, match="0 results for 1 jobs"):
        await empty.submit(1)
