"""Cancellation: work stops between two batches once nobody waits for it any more."""

from __future__ import annotations

import atexit
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from rerank_integrations.errors import RerankError

T = TypeVar("T")

# Several events, since work with a time limit may be part of other work with a time limit.
_given_up: contextvars.ContextVar[tuple[threading.Event, ...]] = contextvars.ContextVar("given_up", default=())

# The threads of `within` that still work, each with the event that stops it before its next batch.
_running: dict[threading.Thread, threading.Event] = {}
# Longer than any batch takes. Work that blocks for longer does not prevent the process from ending.
_EXIT_TIMEOUT_SECONDS = 20.0


class GivenUpError(RerankError):
    """End of work that nobody waits for any more; raised inside that work."""


class OutOfTimeError(RerankError, TimeoutError):
    """End of the time for some work; a class of its own, since the work itself may raise `TimeoutError`."""


def check_wanted() -> None:
    """Raise `GivenUpError` if the caller of this work has gone on without it; call it before each batch."""
    if any(event.is_set() for event in _given_up.get()):
        raise GivenUpError("nobody waits for this work any more")


def revocable() -> tuple[contextvars.Context, threading.Event]:
    """Return a copy of the caller's context, and the event that stops work in that context."""
    event = threading.Event()
    context = contextvars.copy_context()
    context.run(_given_up.set, (*_given_up.get(), event))
    return context, event


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return the result of `work` if it ends within `seconds`.

    The work runs on a thread of its own. When the time is over, or the wait for it is interrupted, it stops before its
    next batch.

    Raises
    ------
    OutOfTimeError
        When the time is over. The work's own errors pass through.
    """
    context, given_up = revocable()
    future: Future[T] = Future()
    try:
        # An interrupt may come as early as here.
        _start(future, lambda: context.run(work), given_up)
        wait([future], timeout=min(seconds, threading.TIMEOUT_MAX))
        if not future.done():
            raise OutOfTimeError(f"not done within {seconds:.3f} s")
        return future.result()
    finally:
        if not future.done():
            given_up.set()


def _start(future: Future[T], work: Callable[[], T], given_up: threading.Event) -> None:
    """Start `work` on a new thread, since all threads of a pool may be waiting for work that they would start there."""
    thread = threading.Thread(target=_run, args=(future, work), name="rerank-integrations-budget", daemon=True)
    _running[thread] = given_up
    try:
        thread.start()
    except RuntimeError:
        # There are too many threads: this thread does not run.
        del _running[thread]
        raise


def _run(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        # The error's traceback holds this frame: without this it and the future would hold each other.
        del future
    finally:
        _running.pop(threading.current_thread(), None)


@atexit.register
def _finish_running() -> None:
    """Wait until no thread of `within` is in a batch.

    The interpreter stops a daemon thread where it asks for the lock of the interpreter. Within a forward pass of torch
    this unwinds frames of C++ that must not be unwound, and the process aborts.
    """
    deadline = time.monotonic() + _EXIT_TIMEOUT_SECONDS
    running = list(_running.items())
    for _, given_up in running:
        given_up.set()
    for thread, _ in running:
        thread.join(max(0.0, deadline - time.monotonic()))
