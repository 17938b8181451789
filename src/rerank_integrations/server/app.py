"""`create_app`: the ASGI application of the service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import rerank_integrations
from rerank_integrations.core import telemetry
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.errors import InvalidInputError, MissingExtraError, RerankError
from rerank_integrations.server.bi_encoder import BiEncoder, TextEncoder
from rerank_integrations.server.comparing import Comparer
from rerank_integrations.server.errors import Problem, problem_of
from rerank_integrations.server.service import RerankerLike, Service
from rerank_integrations.server.settings import ServerSettings
from rerank_integrations.server.uploads import FileStore

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from starlette.responses import JSONResponse

    from rerank_integrations.server.metrics import Metrics

_logger = logging.getLogger("rerank_integrations.server")

# As a request names them.
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def create_app(
    indexes: Mapping[str, ColBERTIndex],
    rerankers: Mapping[str, RerankerLike] | None = None,
    settings: ServerSettings | None = None,
    *,
    bi_encoder: BiEncoder | TextEncoder | str | None = None,
    allowed_hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Return the service as an ASGI application, for `serve`, uvicorn or a mount in an application of your own.

    Parameters
    ----------
    indexes
        Open indexes by their public names; the application closes them when it ends. Clients can write those that are
        open for writing, if `settings` say so.
    rerankers
        Models, scorers, `Reranker`s or `Cascade`s by their public names. Each index is one too, by its own name.
    settings
        By default those of the environment.
    bi_encoder
        For the comparison of generations, ``/v1/compare`` and the page at ``/``: the name or path of a model of
        sentence-transformers, ``"starter"`` for all-MiniLM-L6-v2, or an encoder of your own. It encodes the passages of
        every index, in the background, and its vectors are in memory. By default there is none.
    allowed_hosts
        Names by which clients reach the application beside those of the loopback address, without ports: a request
        with another ``Host`` is refused. ``None`` allows all. Give them where no token protects what is served, lest a
        page in a browser reach it by a name that leads to this machine.

    Returns
    -------
    fastapi.FastAPI
        ``app.state.service`` is the `Service` that its routes call.

    Raises
    ------
    InvalidInputError
        For neither indexes nor rerankers, a name that cannot be one, an object of a wrong kind, or a name of a
        host that is none.
    MissingExtraError
        If FastAPI or another library of the extra ``[server]`` is not installed.
    """
    app = bare_app(indexes, rerankers, settings, allowed_hosts)
    from rerank_integrations.server.compare_routes import comparison
    from rerank_integrations.server.routes import api

    service: Service = app.state.service
    app.state.comparer = Comparer(service, _as_bi_encoder(bi_encoder))
    app.state.files = FileStore(service)
    app.include_router(api)
    app.include_router(comparison)
    if service.settings.page:
        from rerank_integrations.server.page_files import page

        app.include_router(page)
    return app


def bare_app(
    indexes: Mapping[str, ColBERTIndex],
    rerankers: Mapping[str, RerankerLike] | None = None,
    settings: ServerSettings | None = None,
    allowed_hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Return an application with a service, limits, probes and metrics, and no routes to the service yet.

    Arguments, errors and what `app.state` has are those of `create_app`.
    """
    try:
        from fastapi import FastAPI

        from rerank_integrations.server.metrics import Metrics
        from rerank_integrations.server.routes import operation, probes
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "orjson", "prometheus_client", "starlette"):
            raise
        raise MissingExtraError("server", "the HTTP service") from error
    chosen = ServerSettings() if settings is None else settings
    metrics = Metrics()
    service = Service(indexes, rerankers or {}, chosen, metrics.observe_batch)
    app = FastAPI(
        title="rerank_integrations",
        summary="ColBERT search and reranking over HTTP",
        version=rerank_integrations.__version__,
        lifespan=_lifespan,
        # Their pages fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # Newer versions of FastAPI have spans of their own, several per request; older ones ignore this.
        telemetry={"tracing": False} if telemetry.is_enabled() else None,
    )
    app.state.service = service
    app.state.metrics = metrics
    app.state.comparer = None
    app.include_router(operation)
    app.include_router(probes)
    _add_error_handlers(app)
    _add_middleware(app, chosen, metrics, allowed_hosts)
    if telemetry.is_enabled():
        from rerank_integrations.server.tracing import add_request_spans

        add_request_spans(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    comparer: Comparer | None = app.state.comparer
    warming = asyncio.create_task(_warm_up(service, comparer))
    try:
        yield
    finally:
        warming.cancel()
        await asyncio.wait({warming})
        if comparer is not None:
            await comparer.close()
        await service.close()


async def _warm_up(service: Service, comparer: Comparer | None) -> None:
    await service.warm_up()
    # Afterwards, so that it delays nothing: a comparison can wait for it, a search need not.
    if comparer is not None and service.settings.warm_up and service.failure is None:
        comparer.prepare()


def _as_bi_encoder(item: BiEncoder | TextEncoder | str | None) -> BiEncoder | None:
    if item is None or isinstance(item, BiEncoder):
        return item
    if not isinstance(item, str):
        return BiEncoder("bi-encoder", item)
    # Clients see the name, and no path of the machine.
    return BiEncoder(Path(item).resolve().name if Path(item).exists() else item, item)


def required_host(host: str) -> str:
    """Return the name of a host, or raise `InvalidInputError` for one that is none."""
    if not host or any(character in host for character in "*/@ ") or host.startswith(":"):
        raise InvalidInputError(f"the allowed host is {host!r}; expected a name such as 'search.example.org'")
    return host


def _add_middleware(
    app: FastAPI, settings: ServerSettings, metrics: Metrics, allowed_hosts: Sequence[str] | None
) -> None:
    from rerank_integrations.server.middleware import (
        PROBES,
        Admission,
        AllowedHosts,
        BearerToken,
        BodyLimits,
        RequestRecord,
    )

    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimits, max_bytes=settings.max_body_bytes, seconds=settings.body_timeout)
    app.add_middleware(Admission, max_requests=settings.max_requests, metrics=metrics)
    if settings.token is not None:
        free = PROBES
        if settings.page:
            from rerank_integrations.server.page_files import PAGE_PATHS

            free |= PAGE_PATHS
        app.add_middleware(BearerToken, token=settings.token, free=free)
    if allowed_hosts is not None:
        app.add_middleware(AllowedHosts, hosts=[*LOOPBACK_HOSTS, *map(required_host, allowed_hosts)])
    app.add_middleware(RequestRecord, metrics=metrics)


def _add_error_handlers(app: FastAPI) -> None:
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    app.add_exception_handler(RerankError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    from rerank_integrations.server.middleware import error_response

    problem = problem_of(error)
    request.state.error = problem.code
    if problem.status >= 500 and problem.status != HTTPStatus.GATEWAY_TIMEOUT:
        _logger.error("a request failed", exc_info=error, extra={"request_id": request.state.request_id})
    service: Service = request.app.state.service
    return error_response(error, request.state.request_id, service.message_of(error))


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer a body or parameter that does not fit the schema: 400 for bytes that are no JSON, else 422."""
    from fastapi.exceptions import RequestValidationError

    from rerank_integrations.server.bodies import problems_in_words

    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    is_json = all(item["type"] != "json_invalid" for item in problems)
    code = "invalid_input" if is_json else "bad_request"
    return _http_problem(request, 422 if is_json else 400, code, problems_in_words(problems))


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refuses: no such route or method, a body that cannot be read."""
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RerankError):
        # FastAPI makes every error while the body is read one of its own.
        return await _answer_error(request, error.__cause__)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    response = _http_problem(request, error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _http_problem(request: Request, status: int, code: str, message: str) -> JSONResponse:
    from rerank_integrations.server.middleware import problem_response

    request.state.error = code
    return problem_response(Problem(status, code), message, request.state.request_id)
