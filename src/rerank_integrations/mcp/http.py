"""The tools over streamable HTTP: one request per call, behind the token and the limits of the HTTP service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.server.app import LOOPBACK_HOSTS, bare_app, required_host
from rerank_integrations.server.service import RerankerLike
from rerank_integrations.server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

MCP_PATH = "/mcp"


def create_mcp_app(
    indexes: Mapping[str, ColBERTIndex],
    rerankers: Mapping[str, RerankerLike] | None = None,
    settings: ServerSettings | None = None,
    *,
    about: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> FastAPI:
    """Return an ASGI application with the tools at ``/mcp``, and ``/health``, ``/ready`` and ``/metrics``.

    `rerank_integrations.server.serve` runs it. Token, limits and time-outs are those of the HTTP service. A request
    whose ``Host`` or ``Origin`` is not allowed is refused, so that no page in a browser reaches the tools by a name
    that leads to this machine.

    Parameters
    ----------
    indexes, rerankers, settings
        As for `rerank_integrations.server.create_app`; the tools that write exist if the settings say ``writable``.
    about
        What the indexes contain, in a sentence for agents.
    allowed_hosts
        Names by which clients reach the application beside those of the loopback address, without ports.

    Raises
    ------
    InvalidInputError
        As `create_app`, or for a name of a host that is none.
    MissingExtraError
        If a library of the extra ``[mcp]`` is not installed.
    """
    from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.routing import Route

    from rerank_integrations.mcp.protocol import protocol_server

    hosts = [*LOOPBACK_HOSTS, *map(required_host, allowed_hosts)]
    app = bare_app(indexes, rerankers, settings)
    service = app.state.service
    manager = StreamableHTTPSessionManager(
        protocol_server(service, about),
        # The tools send nothing but answers, so a request needs no session, and its answer no stream.
        stateless=True,
        json_response=True,
        max_request_body_size=service.settings.max_body_bytes,
        security_settings=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[pattern for host in hosts for pattern in (host, f"{host}:*")],
            allowed_origins=[
                pattern
                for host in hosts
                for scheme in ("http", "https")
                for pattern in (f"{scheme}://{host}", f"{scheme}://{host}:*")
            ],
        ),
    )
    app.router.routes.append(Route(MCP_PATH, StreamableHTTPASGIApp(manager), methods=["POST"]))
    with_service = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with with_service(app), manager.run():
            yield

    app.router.lifespan_context = lifespan
    return app
