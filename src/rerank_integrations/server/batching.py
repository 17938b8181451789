"""Common batches: the requests that wait while a batch is computed form the next one."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rerank_integrations.core import telemetry
from rerank_integrations.core.concurrency.aio import run_blocking

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Job, Result]):
    job: Job
    size: int
    result: asyncio.Future[Result]
    span: telemetry.AnySpan


class Batcher(Generic[Job, Result]):
    """Queue of jobs, which are worked on in common batches, one batch at a time and in the order in which they came.

    No job waits for others to come: a batch is what has gathered during the batch before it. All methods belong to one
    event loop, and `work` runs on a thread.

    Parameters
    ----------
    work
        Return one result per job.
    size
        The size of a job.
    max_size
        The sum of the sizes of a batch; a job that is larger is a batch of its own.
    on_batch
        Called with the number of jobs and the size of each batch.
    name
        The name of the queue, for traces.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        size: Callable[[Job], int],
        max_size: int,
        on_batch: Callable[[int, int], None] = lambda jobs, size: None,
        name: str = "",
    ) -> None:
        self._work = work
        self._size = size
        self._max_size = max_size
        self._on_batch = on_batch
        self._name = name
        self._queue: deque[_Waiting[Job, Result]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, job: Job) -> Result:
        """Return the result of `job`.

        If the calling task is cancelled, the job leaves the queue; a batch of cancelled jobs alone stops computing.

        Raises
        ------
        Exception
            What `work` raises for this job by itself: where a batch fails, its jobs are worked on one by one.
        """
        with telemetry.working(f"queue {self._name}") as span:
            waiting = _Waiting[Job, Result](job, self._size(job), asyncio.get_running_loop().create_future(), span)
            self._queue.append(waiting)
            if self._worker is None or self._worker.done():
                # In a context of its own, not in that of the caller who happens to come first.
                self._worker = contextvars.Context().run(asyncio.create_task, self._work_off())
            # Awaited as it is, so that cancelling the task cancels this future.
            return await waiting.result

    async def _work_off(self) -> None:
        while batch := self._next_batch():
            self._on_batch(len(batch), sum(waiting.size for waiting in batch))
            if await self._compute(batch):
                continue
            for waiting in batch:
                if not waiting.result.done():
                    await self._compute([waiting])

    def _next_batch(self) -> list[_Waiting[Job, Result]]:
        batch: list[_Waiting[Job, Result]] = []
        size = 0
        while self._queue:
            if self._queue[0].result.done():
                self._queue.popleft()
                continue
            size += self._queue[0].size
            if batch and size > self._max_size:
                break
            batch.append(self._queue.popleft())
        return batch

    def _results(self, jobs: Sequence[Job]) -> Sequence[Result]:
        results = self._work(jobs)
        if len(results) != len(jobs):
            # Otherwise jobs without a result would be waited for until their time is over.
            raise RuntimeError(f"{len(results)} results for {len(jobs)} jobs; expected one each")
        return results

    async def _compute(self, batch: Sequence[_Waiting[Job, Result]]) -> bool:
        """Compute `batch` and set its results; return whether it need not be repeated job by job."""
        computing = await self._computed(batch)
        if computing.cancelled():
            return True
        error = computing.exception()
        if error is not None and len(batch) > 1:
            return False
        for position, waiting in enumerate(batch):
            if waiting.result.done():
                continue
            if error is not None:
                waiting.result.set_exception(error)
            else:
                waiting.result.set_result(computing.result()[position])
        return True

    async def _computed(self, batch: Sequence[_Waiting[Job, Result]]) -> asyncio.Future[Sequence[Result]]:
        """Return the finished computing of `batch`, which is cancelled once nobody waits for it."""
        with telemetry.batching(self._name, [waiting.span for waiting in batch]) as span:
            span.set(batch_size=sum(waiting.size for waiting in batch))
            computing = asyncio.ensure_future(run_blocking(self._results, [waiting.job for waiting in batch]))

            def stop_if_unwanted(_: object) -> None:
                if all(waiting.result.done() for waiting in batch):
                    computing.cancel()

            for waiting in batch:
                waiting.result.add_done_callback(stop_if_unwanted)
            await asyncio.wait([computing])
            for waiting in batch:
                waiting.result.remove_done_callback(stop_if_unwanted)
            if computing.cancelled():
                span.set(cancelled=True)
            elif (error := computing.exception()) is not None:
                span.fail(error)
        return computing
