"""`serve`: the service on a port, until a signal stops it."""

from __future__ import annotations

import logging
import time
from types import FrameType
from typing import TYPE_CHECKING

from rerank_integrations.errors import MissingExtraError, RerankError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rerank_integrations.server.service import Service

_logger = logging.getLogger("rerank_integrations.server")


def serve(app: FastAPI, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve an application of `create_app` until SIGINT or SIGTERM.

    After the first signal ``/ready`` answers 503. After ``drain_seconds`` no connection is accepted any more; requests
    that have begun are finished, for ``shutdown_timeout`` seconds at most. A second signal skips the rest of the
    draining, a third one the rest of the requests.

    Parameters
    ----------
    host
        The address to listen at; the default is reached from this machine alone.
    port
        The port; 0 takes a free one, which the log names.

    Raises
    ------
    MissingExtraError
        If uvicorn is not installed (extra ``[server]``).
    RerankError
        If a model or an index cannot be loaded at the start.
    OSError
        If the port cannot be opened.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise MissingExtraError("server", "the HTTP service") from error
    from rerank_integrations.server.connections import allow_many_connections, uvicorn_config

    service: Service = app.state.service

    class Server(uvicorn.Server):
        """Server that drains before it stops, and stops if the service cannot start."""

        _stops_at = float("inf")

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # The server's own method would raise the signal again after its end, though it ended well.
            if not service.draining:
                service.draining = True
                self._stops_at = time.monotonic() + service.settings.drain_seconds
            elif not self.should_exit:
                self.should_exit = True
            else:
                self.force_exit = True

        async def on_tick(self, counter: int) -> bool:
            if time.monotonic() >= self._stops_at or service.failure is not None:
                self.should_exit = True
            return await super().on_tick(counter)

    if service.settings.token is None and host not in ("127.0.0.1", "::1", "localhost"):
        _logger.warning("anybody who reaches %s may call this service; expected a token in the settings", host)
    allow_many_connections()
    Server(uvicorn_config(app, host, port)).run()
    if service.failure is not None:
        raise RerankError(f"the service could not start: {service.failure}") from service.failure
