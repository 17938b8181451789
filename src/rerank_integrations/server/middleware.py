"""Steps of every request before its route: record, host, token, admission, limits of the body.

These are plain ASGI applications around another one, so that a request is refused before its body is read.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection

import anyio
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rerank_integrations.server.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    HostNotAllowedError,
    Problem,
    TooManyRequestsError,
    UnauthorizedError,
    problem_of,
)
from rerank_integrations.server.metrics import Metrics

_logger = logging.getLogger("rerank_integrations.server")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Probes have no token, and must be answered when the service is full.
PROBES = frozenset({"/health", "/ready"})


def error_response(error: BaseException, request_id: str, message: str | None = None) -> JSONResponse:
    """Return the answer to `error`, by the table; `message` replaces the error's own."""
    problem = problem_of(error)
    response = problem_response(problem, problem.message or message or str(error), request_id)
    if isinstance(error, TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def problem_response(problem: Problem, message: str, request_id: str) -> JSONResponse:
    """Return the answer of this status and code, in the shape that all errors have."""
    # A lone surrogate of the client's has no UTF-8.
    text = message.encode("utf-8", "backslashreplace").decode("utf-8")
    body = {"code": problem.code, "message": text, "detail": text, "request_id": request_id}
    return JSONResponse(body, problem.status)


class RequestRecord:
    """Give each request an id, write one line and count it when it ends, and answer what nobody else caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the ASGI specification says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, record_status)
        except Exception as error:
            _logger.exception("an unexpected error", extra={"request_id": request_id})
            if not status:
                await error_response(error, request_id)(scope, receive, record_status)
        finally:
            self._record(scope, request_id, status, time.perf_counter() - started)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        # The pattern of the route and not the path, which has as many values as clients like.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.observe_request(route, method, status, seconds)
        fields = {"request_id": request_id, "method": method, "route": route, "status": status}
        if code := scope["state"].get("error"):
            fields["error"] = code
        _logger.info("request", extra={**fields, "ms": round(seconds * 1000, 1)})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class AllowedHosts:
    """Refuse requests for other hosts than these, all but those for `PROBES`.

    A page in a browser reaches a service of this machine by a name of its own that leads here (DNS rebinding), and
    could then read and write what it serves. The browser sends that name as ``Host``.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the ASGI specification says."""
        if scope["type"] == "lifespan" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        name, colon, port = host.rpartition(":")
        # An IPv6 address has colons within its brackets.
        name = name if colon and port.isdecimal() else host
        if name.lower() in self._hosts:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            error = HostNotAllowedError(
                f"the host of the request is {name[:100]!r}; expected one of {', '.join(sorted(self._hosts))}: "
                "--allow-host adds a name"
            )
            await _refuse(error, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class BearerToken:
    """Refuse requests without the token, all but those for `free` paths."""

    def __init__(self, app: ASGIApp, token: SecretStr, free: frozenset[str] = PROBES) -> None:
        self._app = app
        self._token = token.get_secret_value().encode()
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the ASGI specification says."""
        if scope["type"] == "lifespan" or scope["path"] in self._free or self._is_right(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            error = UnauthorizedError(
                "the request has no valid token; expected the header Authorization: Bearer <token>"
            )
            await _refuse(error, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_right(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Takes the same time wherever the two differ.
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)


class Admission:
    """Accept so many requests at a time: those whose bodies are read, that wait, or that are computed."""

    def __init__(self, app: ASGIApp, max_requests: int, metrics: Metrics) -> None:
        self._app = app
        self._max_requests = max_requests
        self._metrics = metrics
        self._in_flight = 0
        self._mean_seconds = 1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the ASGI specification says."""
        if scope["type"] != "http" or scope["path"] in PROBES or scope["path"] == "/metrics":
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._max_requests:
            error = TooManyRequestsError(
                f"the service has {self._in_flight} requests, as many as it accepts; try again later",
                self._mean_seconds,
            )
            await _refuse(error, scope, receive, send)
            return
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        started = time.monotonic()
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.set(self._in_flight)
            # How long a request takes under the present load: by then some of the queue has been worked off.
            self._mean_seconds += 0.1 * (time.monotonic() - started - self._mean_seconds)


class BodyLimits:
    """Refuse bodies that are too large or take too long, as they arrive, whether or not their length is stated."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the ASGI specification says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            await _refuse(self._too_large(), scope, receive, send)
            return
        deadline = time.monotonic() + self._seconds
        received, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            message: Message | None = None
            # Not `asyncio.wait_for`, which before Python 3.12 may ignore that its task is cancelled.
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                message = await receive()
            if message is None:
                raise BodyTimeoutError(f"the body took more than {self._seconds:g} seconds")
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_limited, send)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body is larger than {self._max_bytes} bytes")


async def _refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["error"] = problem_of(error).code
    with contextlib.suppress(OSError):
        await error_response(error, scope["state"]["request_id"])(scope, receive, send)
