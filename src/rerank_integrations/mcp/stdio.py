"""The tools on the standard input and output, for a client that starts the server as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

import anyio.to_thread
from mcp.server import Server
from mcp.server.stdio import stdio_server

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.errors import RerankError
from rerank_integrations.mcp.protocol import protocol_server
from rerank_integrations.server.service import RerankerLike, Service
from rerank_integrations.server.settings import ServerSettings

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve_stdio(
    indexes: Mapping[str, ColBERTIndex],
    rerankers: Mapping[str, RerankerLike] | None = None,
    settings: ServerSettings | None = None,
    *,
    about: str | None = None,
) -> None:
    """Serve the tools to the client on the other end of the standard input and output, until it closes them.

    SIGINT or SIGTERM end it too; a second one ends it at once. Calls that run are given up then, but a write that has
    begun is finished, and the indexes are closed. Only the protocol is written to the standard output: what else a
    library prints there meanwhile goes to the standard error stream. Call it in the main thread.

    Parameters
    ----------
    indexes, rerankers, settings
        As for `rerank_integrations.server.create_app`; the tools that write exist if the settings say ``writable``.
        The settings that concern HTTP (token, requests at a time, size of a body) mean nothing here.
    about
        What the indexes contain, in a sentence for agents.

    Raises
    ------
    InvalidInputError
        As `rerank_integrations.server.create_app`.
    RerankError
        If a model or an index cannot be loaded at the start.
    """
    service = Service(indexes, rerankers or {}, ServerSettings() if settings is None else settings)
    server = protocol_server(service, about)
    with _diverted_streams() as (incoming, outgoing):
        asyncio.run(_serve(service, server, incoming, outgoing))
    if service.failure is not None:
        raise RerankError(f"the server could not start: {service.failure}") from service.failure


async def _serve(service: Service, server: Server[Any], incoming: int, outgoing: int) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        _restore_signals(loop)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    warming = asyncio.ensure_future(_warm_up(service, stopping))
    serving = asyncio.ensure_future(_serve_client(server, incoming, outgoing))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (serving, warming, stopped):
            task.cancel()
        await asyncio.wait({serving, warming, stopped})
        await service.close()
        _restore_signals(loop)
    if not serving.cancelled():
        # Not the end of the client, which is no error, but what else may have gone wrong.
        serving.result()


def _restore_signals(loop: asyncio.AbstractEventLoop) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)


async def _warm_up(service: Service, stopping: asyncio.Event) -> None:
    await service.warm_up()
    if service.failure is not None:
        stopping.set()


async def _serve_client(server: Server[Any], incoming: int, outgoing: int) -> None:
    lines = cast("anyio.AsyncFile[str]", _Lines(incoming))
    output = cast("anyio.AsyncFile[str]", _Output(outgoing))
    async with stdio_server(lines, output) as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


@contextlib.contextmanager
def _diverted_streams() -> Iterator[tuple[int, int]]:
    """Yield the standard input and output as file descriptors of their own.

    Meanwhile everything else in this process reads nothing from the first, and writes to the standard error stream
    instead of the second: Python's `print`, libraries in C, and child processes.
    """
    sys.stdout.flush()
    incoming, outgoing, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield incoming, outgoing
    finally:
        # What was printed to the first object of the output meanwhile.
        with contextlib.suppress(OSError, ValueError):
            (sys.__stdout__ or sys.stdout).flush()
        os.dup2(outgoing, 1)
        os.dup2(incoming, 0)
        for descriptor in (outgoing, nothing):
            os.close(descriptor)
        # A thread may still read from `incoming`: its number must not become that of another file.


class _Lines:
    """Lines of a file, read on a thread that ends with the process, so that nobody has to wait for the next line.

    The SDK's own reader can only be stopped by the end of the input.
    """

    def __init__(self, descriptor: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(1)
        threading.Thread(target=self._read, args=(descriptor,), name="mcp-stdin", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._queue.get()) is not None:
            yield line

    def _read(self, descriptor: int) -> None:
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError, OSError), open(descriptor, "rb", closefd=False) as stream:
            for line in stream:
                self._put(line.decode("utf-8", "replace"))
        with contextlib.suppress(RuntimeError):
            self._put(None)

    def _put(self, line: str | None) -> None:
        # Waits until the line before it has been taken, so that a client that sends faster than it is read is slowed.
        putting = self._queue.put(line)
        try:
            asyncio.run_coroutine_threadsafe(putting, self._loop).result()
        except RuntimeError:
            putting.close()
            raise


class _Output:
    """File to which whole messages are written, off the event loop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, text: str) -> None:
        # If the client is gone, the end of the input says so.
        with contextlib.suppress(OSError):
            await anyio.to_thread.run_sync(self._write, text.encode())

    async def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
