"""``rerank-integrations mcp``: tools for agents, on the standard streams or over HTTP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rerank_integrations.cli.options import ModelOfIndexes, ServedColberts, ServedCrossEncoders, ServedIndexes
from rerank_integrations.cli.serve import LOOPBACK, WILDCARDS, Model, by_name, models_by_name, read_token
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.server import ServerSettings

_logger = logging.getLogger("rerank_integrations.server")


About = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the indexes contain, for agents that choose a tool.")
]
ReadOnly = Annotated[
    bool, typer.Option("--read-only", help="Offer no tools that store or remove; others may write the indexes.")
]
OverHttp = Annotated[bool, typer.Option("--http", help="Listen at http://HOST:PORT/mcp, not on the standard streams.")]
Host = Annotated[str | None, typer.Option(help="With --http: address to listen at. \\[default: 127.0.0.1]")]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="With --http: port to listen at; 0 takes a free one. \\[default: 8001]"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="With --http: file with the token that clients send as a bearer token."
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="With --http: name by which clients reach the server; repeat it for several."),
]


def mcp(
    indexes: ServedIndexes = None,
    about: About = None,
    read_only: ReadOnly = False,
    reranker: ServedCrossEncoders = None,
    colbert: ServedColberts = None,
    model: ModelOfIndexes = None,
    http: OverHttp = False,
    host: Host = None,
    port: Port = None,
    token_file: TokenFile = None,
    allow_host: AllowedHosts = None,
) -> None:
    """Serve indexes and models to agents over the Model Context Protocol: search, get, rerank, add, delete.

    A client starts this as a process and talks to it on the standard streams.
    With --http, clients connect to it.
    The log is JSON on the standard error stream.
    """
    # Before anything else, so that a missing extra is named at once.
    from rerank_integrations import mcp as _  # noqa: F401

    _require_http(http, host=host, port=port, token_file=token_file, allow_host=allow_host)
    settings = _settings(read_only, token_file)
    address = "127.0.0.1" if host is None else host
    if http:
        _require_safe(address, settings)
    encoder = None if model is None else ColBERTModel(model)
    models = models_by_name(reranker or [], colbert or [])
    opened = by_name(indexes or [], lambda path: ColBERTIndex.open(path, encoder, read_only=not settings.writable))
    try:
        if http:
            hosts = [*(allow_host or []), *([] if address in (*LOOPBACK, *WILDCARDS) else [address])]
            _run_http(opened, models, settings, about, hosts, address, 8001 if port is None else port)
        else:
            _run_stdio(opened, models, settings, about)
    finally:
        for index in opened.values():
            index.close()


def _run_stdio(
    indexes: dict[str, ColBERTIndex],
    models: dict[str, Model],
    settings: ServerSettings,
    about: str | None,
) -> None:
    from rerank_integrations.mcp import serve_stdio
    from rerank_integrations.server.logs import log_as_json

    log_as_json()
    _log_indexes(indexes, settings)
    serve_stdio(indexes, models, settings, about=about)


def _run_http(
    indexes: dict[str, ColBERTIndex],
    models: dict[str, Model],
    settings: ServerSettings,
    about: str | None,
    allowed_hosts: list[str],
    host: str,
    port: int,
) -> None:
    from rerank_integrations.mcp import create_mcp_app
    from rerank_integrations.server import serve
    from rerank_integrations.server.logs import log_as_json
    from rerank_integrations.server.tracing import tracing_by_environment

    log_as_json()
    _log_indexes(indexes, settings)
    with tracing_by_environment():
        serve(create_mcp_app(indexes, models, settings, about=about, allowed_hosts=allowed_hosts), host, port)


def _log_indexes(indexes: dict[str, ColBERTIndex], settings: ServerSettings) -> None:
    access = "writable" if settings.writable else "read-only"
    for name, index in indexes.items():
        _logger.info("serving the index %s at %s, %s", name, index.path, access)


def _require_http(http: bool, **given: object) -> None:
    """Refuse options of the HTTP transport without it."""
    for name, value in given.items():
        if value is not None and value != [] and not http:
            raise InvalidInputError(f"--{name.replace('_', '-')} is given without --http; expected both")


def _require_safe(host: str, settings: ServerSettings) -> None:
    """Refuse to let anybody on a network write."""
    if host not in LOOPBACK and settings.writable and settings.token is None:
        raise InvalidInputError(
            f"anybody who reaches {host} could store and remove passages; expected --token-file, or --read-only"
        )


def _settings(read_only: bool, token_file: Path | None) -> ServerSettings:
    from rerank_integrations.server import ServerSettings

    given: dict[str, Any] = {} if token_file is None else {"token": read_token(token_file)}
    if read_only:
        given["writable"] = False
    elif "writable" not in ServerSettings(**given).model_fields_set:
        # The default of the HTTP service is for networks; here the environment may still forbid it.
        given["writable"] = True
    return ServerSettings(**given)
