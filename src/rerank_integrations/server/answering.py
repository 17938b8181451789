"""Waiting for an answer: no longer than the time limit, and only while the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from rerank_integrations.core.concurrency.cancel import OutOfTimeError
from rerank_integrations.server.errors import ClientGoneError

T = TypeVar("T")


async def wait_for_answer(request: Request | None, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return the result of `work`; cancel it when the time is over or the client closes the connection.

    The body of `request` must have been read. Without a request, only the time ends the wait.

    Raises
    ------
    OutOfTimeError
        After `seconds`.
    ClientGoneError
        When the client is gone; nobody sees the answer then.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(asyncio.Event().wait() if request is None else _disconnected(request))
    try:
        await asyncio.wait({working, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            raise ClientGoneError("the client has closed the connection")
        raise OutOfTimeError(f"no answer within {seconds:g} seconds; ask for less at a time, or later")
    finally:
        leaving.cancel()
        working.cancel()
        # It ends before the request does, so that nothing of it is left in the queue.
        await asyncio.wait({working})


async def _disconnected(request: Request) -> bool:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return True
