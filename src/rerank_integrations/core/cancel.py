"""Work that is given up between two batches, once nobody waits for it any more."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from rerank_integrations.core.aio import submit_blocking
from rerank_integrations.errors import RerankError

T = TypeVar("T")

_given_up: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("given_up", default=None)


class GivenUpError(RerankError):
    """Raised within work that nobody waits for any more."""


def check_wanted() -> None:
    """Raise `GivenUpError` if the caller of this work has gone on without it; called before each batch."""
    event = _given_up.get()
    if event is not None and event.is_set():
        raise GivenUpError("its time ran out")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` gives, if it does so within `seconds`.

    It runs on a thread of the package's pool; once the time is over, it stops before its next batch.

    Raises
    ------
    TimeoutError
        When the time is over. The work's own errors pass through.
    """
    event = threading.Event()
    context = contextvars.copy_context()
    context.run(_given_up.set, event)
    future: Future[T] = submit_blocking(lambda: context.run(work))
    try:
        return future.result(timeout=seconds)
    except FutureTimeoutError:
        # The work's own time-out is its error, not ours.
        if future.done():
            raise
        event.set()
        future.cancel()
        raise TimeoutError(f"not done within {seconds:.3f} s") from None
