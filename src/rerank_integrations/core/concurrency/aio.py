"""Running blocking work off the event loop."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from rerank_integrations.core.concurrency.cancel import revocable

T = TypeVar("T")


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
