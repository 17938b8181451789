"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
