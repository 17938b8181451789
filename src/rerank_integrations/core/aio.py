"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    # Our own: asyncio's default pool is shared with the user's code, and small on small machines.
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="rerank-integrations")


async def run_blocking(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `function` on a thread of this package's pool, with the caller's context variables."""
    context = contextvars.copy_context()
    call = functools.partial(context.run, functools.partial(function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_pool(), call)


def submit_blocking(function: Callable[..., T], *args: Any) -> Future[T]:
    """Start `function` on a thread of its own and return its future.

    Not on the pool: its threads may all be waiting for what they would start here.
    """
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="rerank-integrations-budget", daemon=True).start()
    return future
