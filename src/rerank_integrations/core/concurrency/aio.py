"""Running blocking work off the event loop, and coroutines off the threads that wait for them."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from rerank_integrations.core.concurrency.cancel import check_wanted, revocable
from rerank_integrations.core.concurrency.forks import forks_held_off

T = TypeVar("T")

# How soon a thread that waits for a coroutine notices that nobody waits for it any more.
_POLL_SECONDS = 0.05

_background_loops: dict[int, asyncio.AbstractEventLoop] = {}
_loops_lock = threading.Lock()


@functools.cache
def _pool(pid: int) -> ThreadPoolExecutor:
    # One per process: a fork copies the executor, but not its threads.
    # Not asyncio's default pool, which is shared with the user's code, and small on small machines.
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="rerank-integrations")


async def run_blocking(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `function` on a thread of this package's pool, with the caller's context variables.

    When the task is cancelled, the function stops before its next batch, so that its thread is free for others.
    """
    context, given_up = revocable()
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool(os.getpid()), call)
    except asyncio.CancelledError:
        given_up.set()
        raise


def wait_in_background(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on this package's event loop and wait for it, with the caller's context variables.

    The coroutine is cancelled when the wait is interrupted, or nobody waits for the caller's work any more.
    """
    check_wanted()
    future = asyncio.run_coroutine_threadsafe(work(), _background_loop())
    try:
        while not wait([future], timeout=_POLL_SECONDS).done:
            check_wanted()
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def await_in_background(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on this package's event loop and await it from any other loop, without a thread that waits.

    Connections belong to one loop. On a common loop, callers of several loops and threads share them.
    """
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), _background_loop()))


def _background_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs on a thread of this package, the same for all callers of a process."""
    pid = os.getpid()
    with forks_held_off(), _loops_lock:
        if pid not in _background_loops:
            # A fork copies the parent's loop, but not its thread. The copy stays where it is: closing it would take
            # the parent's sockets out of the set that both processes watch.
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="rerank-integrations-http", daemon=True).start()
            _background_loops[pid] = loop
        return _background_loops[pid]
