"""``rerank-integrations serve``: search and rerank over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import typer

from rerank_integrations.cli.options import (
    ModelOfIndexes,
    ServedColberts,
    ServedCrossEncoders,
    ServedIndexes,
    is_remote,
    load_reranker,
)
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel
from rerank_integrations.core.reranking.remote import RemoteReranker
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.server import ServerSettings
    from rerank_integrations.server.bi_encoder import BiEncoder

T = TypeVar("T")
# Addresses to listen at.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WILDCARDS = ("0.0.0.0", "::")

Model: TypeAlias = ColBERTModel | CrossEncoderModel | RemoteReranker

_logger = logging.getLogger("rerank_integrations.server")


def serve(
    indexes: ServedIndexes = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every address of the machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    reranker: ServedCrossEncoders = None,
    colbert: ServedColberts = None,
    bi_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="Bi-encoder to compare with on the page at /, also 'starter'; it encodes all passages into memory.",
        ),
    ] = None,
    model: ModelOfIndexes = None,
    writable: Annotated[bool, typer.Option("--writable", help="Let clients store and delete passages.")] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File with the token that clients must send as a bearer token."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name by which clients reach the service; repeat it for several."),
    ] = None,
) -> None:
    """Serve indexes and models over HTTP: a page at /, /v1/rerank, /v1/search and more, until a signal stops it.

    Each index is a reranker too, by its name.
    The log is JSON on the standard error stream.
    Limits, time-outs and the token are also read from the environment.
    At a loopback address without a token, a request for the name of another host is refused.
    """
    settings = _settings(writable, token_file)
    encoder = None if model is None else ColBERTModel(model)
    rerankers = models_by_name(reranker or [], colbert or [])
    dense = _bi_encoder(bi_encoder)
    opened = by_name(indexes or [], lambda path: ColBERTIndex.open(path, encoder, read_only=not settings.writable))
    _run(opened, rerankers, dense, settings, host, port, _allowed_hosts(host, settings, allow_host or []))


def _run(
    indexes: dict[str, ColBERTIndex],
    rerankers: dict[str, Model],
    bi_encoder: BiEncoder | None,
    settings: ServerSettings,
    host: str,
    port: int,
    allowed_hosts: list[str] | None,
) -> None:
    from rerank_integrations.server import create_app, serve
    from rerank_integrations.server.logs import log_as_json
    from rerank_integrations.server.tracing import tracing_by_environment

    log_as_json()
    for name, index in indexes.items():
        _logger.info(
            "serving the index %s at %s, %s", name, index.path, "writable" if settings.writable else "read-only"
        )
    try:
        with tracing_by_environment():
            app = create_app(indexes, rerankers, settings, bi_encoder=bi_encoder, allowed_hosts=allowed_hosts)
            serve(app, host, port)
    finally:
        for index in indexes.values():
            index.close()


def _allowed_hosts(host: str, settings: ServerSettings, names: list[str]) -> list[str] | None:
    """Return the names of the service beside those of the loopback address; ``None`` for any.

    Only a service that is free for this machine alone needs them unasked: no page of another site has the token, and
    at other addresses clients have names that are not known here.
    """
    if not names and (host not in LOOPBACK or settings.token is not None):
        return None
    return [*names, *([] if host in (*LOOPBACK, *WILDCARDS) else [host])]


def models_by_name(cross_encoders: list[str], colberts: list[str]) -> dict[str, Model]:
    """Return the models of two options by their names."""
    by_kind = by_name(cross_encoders, load_reranker), by_name(colberts, ColBERTModel)
    if shared := sorted(set(by_kind[0]) & set(by_kind[1])):
        raise InvalidInputError(
            f"{shared[0]!r} is the name of two models; expected names that differ: NAME={shared[0]}"
        )
    return {**by_kind[0], **by_kind[1]}


def _bi_encoder(item: str | None) -> BiEncoder | None:
    from rerank_integrations.server.bi_encoder import BiEncoder

    return next((BiEncoder(name, model) for name, model in by_name([] if item is None else [item], str).items()), None)


def _settings(writable: bool, token_file: Path | None) -> ServerSettings:
    from rerank_integrations.server import ServerSettings

    given: dict[str, Any] = {}
    if writable:
        given["writable"] = True
    if token_file is not None:
        given["token"] = read_token(token_file)
    return ServerSettings(**given)


def read_token(path: Path) -> str:
    """Return the token in a file, without the line's end."""
    return path.read_text("utf-8").strip()


def _name_of_remote(reranker: str) -> str:
    """Return the name of a service without one of its own: its model's, or else its host's."""
    options = load_reranker(reranker).options()
    return str(options.get("model") or urlsplit(options["url"]).hostname)


def by_name(items: list[str], make: Callable[[str], T]) -> dict[str, T]:
    """Return the objects of ``NAME=VALUE`` arguments.

    A value without a name has that of its folder, or is the name; a service has the name of its model or its host.
    """
    made: dict[str, T] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if is_remote(item):
            # An address or an object may contain the sign, but no name begins as they do.
            name, value = _name_of_remote(item), item
        elif not separator:
            name, value = Path(item).resolve().name if Path(item).exists() else item, item
        if name in made:
            raise InvalidInputError(f"{name!r} is the name of two; expected names that differ: NAME={value}")
        made[name] = make(value)
    return made
