"""Work that is given up between two batches, once nobody waits for it any more."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from rerank_integrations.errors import RerankError

T = TypeVar("T")

# Several: work within a time may be part of other work within a time.
_given_up: contextvars.ContextVar[tuple[threading.Event, ...]] = contextvars.ContextVar("given_up", default=())


class GivenUpError(RerankError):
    """Raised within work that nobody waits for any more."""


class OutOfTimeError(RerankError, TimeoutError):
    """The time for some work is over; a class of its own, since the work may raise a `TimeoutError` itself."""


def check_wanted() -> None:
    """Raise `GivenUpError` if the caller of this work has gone on without it; called before each batch."""
    if any(event.is_set() for event in _given_up.get()):
        raise GivenUpError("nobody waits for this work any more")


def revocable() -> tuple[contextvars.Context, threading.Event]:
    """Return a copy of the caller's context, and the event by which work in that context is given up."""
    event = threading.Event()
    context = contextvars.copy_context()
    context.run(_given_up.set, (*_given_up.get(), event))
    return context, event


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` gives, if it does so within `seconds`.

    It runs on a thread of its own. Once the time is over, or the wait for it is interrupted, it stops before its next
    batch.

    Raises
    ------
    OutOfTimeError
        When the time is over. The work's own errors pass through.
    """
    context, given_up = revocable()
    future = _started(lambda: context.run(work))
    try:
        wait([future], timeout=min(seconds, threading.TIMEOUT_MAX))
        if not future.done():
            raise OutOfTimeError(f"not done within {seconds:.3f} s")
        return future.result()
    finally:
        if not future.done():
            given_up.set()


def _started(work: Callable[[], T]) -> Future[T]:
    """Start `work` on a thread of its own: those of a pool may all be waiting for what they would start there."""
    future: Future[T] = Future()
    threading.Thread(target=_run, args=(future, work), name="rerank-integrations-budget", daemon=True).start()
    return future


def _run(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        # The error's traceback holds this frame: without this it and the future would hold each other.
        del future
