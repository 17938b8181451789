"""uvicorn's configuration for the service: slow clients are let go, and many connections may be open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, ClassVar

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

_logger = logging.getLogger("rerank_integrations.server")
_MAX_OPEN_FILES = 65_536


def uvicorn_config(app: FastAPI, host: str = "127.0.0.1", port: int = 8000) -> uvicorn.Config:
    """Return the configuration with which `serve` runs an application of `create_app`.

    A connection is closed if it sends no whole head of a request within ``body_timeout``, or reads nothing of an answer
    for so long: a client that stops in the middle would otherwise have its connection, and one of ``max_requests``,
    for as long as it likes.
    """
    settings = app.state.service.settings
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(settings.body_timeout),
        # Records go to the handlers of the process, and each request is logged already.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )


def _protocol(wait_seconds: float) -> type[asyncio.Protocol]:
    class Protocol(_ImpatientProtocol):
        """The protocol with the seconds of one application's settings."""

    Protocol.wait_seconds = wait_seconds
    return Protocol


class _ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[valid-type,misc]
    """Protocol of one connection, which is aborted if the client sends or reads too slowly."""

    wait_seconds: ClassVar[float]

    _head_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.wait_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request is under way from the end of its head on.
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.wait_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Aborted and not closed, since closing waits until what is left has been read.
        self._reading_timer = self.loop.call_later(self.wait_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_reading_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        self._end_reading_timer()
        super().connection_lost(exc)

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None


def allow_many_connections() -> None:
    """Raise the number of files that this process may have open to what the system allows it, within reason.

    The usual limit of 1,024 is reached by a thousand idle connections, after which none is accepted.
    """
    # The module is absent on Windows, which has no such limit.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            _logger.debug("%d open files are allowed, up from %d", wanted, soft)
