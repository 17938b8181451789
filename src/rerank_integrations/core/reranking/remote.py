"""`RemoteReranker`: a reranking service as a scorer, in batches, with retries."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args
from urllib.parse import urljoin, urlsplit

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import is_number, require_texts, seconds, whole_number
from rerank_integrations.core.concurrency.aio import await_in_background, wait_in_background
from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.reranking.remote_shapes import (
    Endpoint,
    RemoteApi,
    RemoteText,
    UnusableAnswerError,
    checked_headers,
    checked_key_header,
    service_message,
)
from rerank_integrations.core.types import ScoreScale
from rerank_integrations.errors import InvalidInputError, MissingExtraError, RemoteError

if TYPE_CHECKING:
    import httpx
    import tenacity
    from typing_extensions import Self

_CONNECT_SECONDS = 10.0
# A hundred long documents that a service returns against the request, and more.
_MAX_ANSWER_BYTES = 64 * 2**20
_FIRST_PAUSE_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 8.0


class RemoteReranker:
    """A reranking service as a scorer: ``rerank-integrations serve``, vLLM, TEI, Cohere, Jina and their like.

    It stands wherever a cross-encoder does, sync and async. Any number of threads, event loops and forked processes
    may use it; nothing is sent before the first call. Texts are sent in batches, at most `max_connections` at a time,
    and equal texts of one query once. What the service cuts of a text is unknown unless it is this package's own.

    Parameters
    ----------
    url
        The service's address, to which `api` adds a path, or the whole address of an endpoint: its path ends in
        ``/rerank`` or ``/score``. It may have a query, such as ``?api-version=…``, which is sent and never shown.
    model
        The name of the model for the service; ``None`` leaves it out.
    api
        The interface of the service. ``"cohere"``: by default at ``/v2/rerank``. ``"jina"`` and ``"vllm"``: at
        ``/v1/rerank``, and vLLM's own at ``/score``. ``"tei"`` (Text Embeddings Inference): at ``/rerank``. ``"auto"``
        goes by the path: ``/v1/rerank`` (the default) or ``/v2/rerank`` as Cohere and Jina, ``/score`` as vLLM, any
        other ``/rerank`` as TEI. ``"rerank-integrations"`` is this package's own service, at ``/v2/rerank``: it is sent
        the ids of passages too, and scores those that its index stores from stored vectors.
    api_key
        Sent as ``Authorization: Bearer …``, or as it is in another `api_key_header`. It is never shown, saved or
        pickled.
    api_key_env
        The name of an environment variable with the key, read at each call; it is saved with a component.
    api_key_header
        The name of the header that has the key, such as ``api-key`` for Azure.
    headers, params
        More headers of each request, and parameters of its address. They are saved with a component and never shown.
        One that is named like a secret is refused.
    batch_size
        Texts per request; by default 100, and 32 for TEI, which refuses more unless configured.
    max_connections
        Requests at a time, of all callers of this object together.
    timeout
        Seconds for a call as a whole, retries included.
    retries
        How often a request is sent again after a failed connection, a status of 429, or of 500 and above. The pause is
        what ``Retry-After`` says, else twice as long each time. No pause ends after the `timeout`.
    score_scale
        The meaning of the service's scores: ``logit``, ``probability``, ``own`` and so on. By default what the service
        reports, as this package's own does, or else ``own``; for TEI ``probability``, or ``logit`` for raw scores.

    Raises
    ------
    InvalidInputError
        For an argument of a wrong kind. At a call, for an environment variable that is not set.
    MissingExtraError
        Without the extra ``[remote]``.
    RemoteError
        At a call: the service could not be reached in time, refused the request, or gave anything but one finite number
        per text.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api: RemoteApi = "auto",
        api_key: str | None = None,
        api_key_env: str | None = None,
        api_key_header: str = "Authorization",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        batch_size: int | None = None,
        max_connections: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        score_scale: ScoreScale | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(url, api, params)
        if model is not None and (not isinstance(model, str) or not model):
            raise InvalidInputError(f"model is {model!r}; expected a name, or None")
        self._key = _checked_key(api_key, api_key_env)
        self._key_env = api_key_env
        self._key_header = checked_key_header(api_key_header)
        self._headers = _headers_beside_key(headers, self._key_header)
        size = self._endpoint.batch_size if batch_size is None else batch_size
        self._batch_size = whole_number(size, "batch_size", 1)
        self._timeout = seconds(timeout, "timeout")
        if not self._timeout:
            raise InvalidInputError("timeout is 0; expected seconds above 0")
        self._retries = whole_number(retries, "retries")
        self._scale = self._checked_scale(score_scale)
        self._reported_scale: ScoreScale | None = None
        self._model = model
        self._arguments = {
            "url": url,
            "model": model,
            "api": api,
            "api_key_env": api_key_env,
            "api_key_header": api_key_header,
            "headers": None if headers is None else dict(headers),
            "params": None if params is None else dict(params),
            "batch_size": batch_size,
            "max_connections": whole_number(max_connections, "max_connections", 1),
            "timeout": timeout,
            "retries": retries,
            "score_scale": score_scale,
        }
        _require_extra()
        self._connections = _Connections(max_connections, min(self._timeout, _CONNECT_SECONDS))
        weakref.finalize(self, self._connections.drop).atexit = False

    def __repr__(self) -> str:
        model = "" if self._model is None else f", model={self._model!r}"
        return f"RemoteReranker({self.url!r}{model})"

    def __reduce__(self) -> tuple[Callable[[], RemoteReranker], tuple[()]]:
        return functools.partial(type(self), **self.options()), ()

    def __copy__(self) -> Self:
        # It has no state to separate, and a copy by its options would have lost the key.
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """The address that requests are sent to."""
        return self._endpoint.url

    @property
    def name(self) -> str:
        """The name that traces and events show: the model's, or else the address."""
        return self.url if self._model is None else self._model

    @property
    def scale(self) -> ScoreScale:
        """The meaning of the scores: as given, else as the service reported it, else ``own``."""
        return self._scale or self._reported_scale or "own"

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that differ from the defaults; never the API key."""
        defaults = inspect.signature(RemoteReranker).parameters
        return {name: value for name, value in self._arguments.items() if value != defaults[name].default}

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score per text, in their order; higher is better.

        Raises
        ------
        InvalidInputError
            If something other than strings is given.
        RemoteError
            If the service gives no scores.
        """
        return [scored.score for scored in self.score_many([query], [_as_candidates(texts)])[0]]

    async def ascore(self, query: str, texts: Sequence[str]) -> list[float]:
        """Do as `score`, without a thread that waits; a cancelled call closes its connections."""
        return [scored.score for scored in (await self.ascore_many([query], [_as_candidates(texts)]))[0]]

    def score_many(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[list[Scored]]:
        """Return, for each query, one `Scored` per candidate of its own; each query has requests of its own."""
        batches = self._batches(queries, candidates)
        if not batches:
            return [[] for _ in queries]
        key = self._read_key()
        return self._in_order(candidates, wait_in_background(lambda: self._score_in_time(batches, key)))

    async def ascore_many(
        self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]
    ) -> list[list[Scored]]:
        """Do as `score_many`, without a thread that waits; a cancelled call closes its connections."""
        batches = self._batches(queries, candidates)
        if not batches:
            return [[] for _ in queries]
        key = self._read_key()
        return self._in_order(candidates, await await_in_background(lambda: self._score_in_time(batches, key)))

    def require_whole(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> None:
        """Refuse, because a service does not report beforehand what it would cut.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            "strict is True with a RemoteReranker, whose service does not say beforehand what it cuts; "
            "expected a ColBERTModel or a CrossEncoderModel"
        )

    def close(self) -> None:
        """Close the connections; requests in flight are sent again, and the next call opens new connections."""
        wait_in_background(self._connections.close)

    async def aclose(self) -> None:
        """Do as `close`."""
        await await_in_background(self._connections.close)

    def _checked_scale(self, scale: ScoreScale | None) -> ScoreScale | None:
        known = ("probability", "logit") if self._endpoint.shape == "tei" else get_args(ScoreScale)
        if scale is None:
            return "probability" if self._endpoint.shape == "tei" else None
        if scale not in known:
            raise InvalidInputError(f"score_scale is {scale!r}; expected one of {', '.join(known)}, or None")
        return scale

    def _read_key(self) -> str | None:
        if self._key_env is None:
            return self._key
        key = os.environ.get(self._key_env, "").strip()
        if not key:
            raise InvalidInputError(f"the environment variable {self._key_env} is not set; expected the API key")
        _require_header_value(key, f"the environment variable {self._key_env}")
        return key

    def _batches(self, queries: Sequence[str], candidates: Sequence[Sequence[Candidate]]) -> list[_Batch]:
        require_texts(queries, "query")
        batches = []
        for number, (query, of_query) in enumerate(zip(queries, candidates, strict=True)):
            require_texts([candidate.text for candidate in of_query])
            items = list(dict.fromkeys(map(self._endpoint.item, of_query)))
            require_texts([item.id for item in items if item.id is not None], "id")
            starts = range(0, len(items), self._batch_size)
            batches += [_Batch(number, query, items[start : start + self._batch_size]) for start in starts]
        return batches

    def _in_order(self, candidates: Sequence[Sequence[Candidate]], scores: _Scores) -> list[list[Scored]]:
        return [
            [scores[number, self._endpoint.item(candidate)] for candidate in of_query]
            for number, of_query in enumerate(candidates)
        ]

    async def _score_in_time(self, batches: Sequence[_Batch], key: str | None) -> _Scores:
        deadline = time.monotonic() + self._timeout
        try:
            answers = await asyncio.wait_for(
                _all_or_cancelled([self._score_batch(batch, key, deadline) for batch in batches]), self._timeout
            )
        # Not the built-in error before Python 3.11.
        except asyncio.TimeoutError:
            answers = None
        if answers is None:
            raise RemoteError(
                f"{self.url} gave no answer to all of {len(batches)} requests within {self._timeout:g} s; "
                "raise timeout, or send fewer texts"
            )
        return {
            (batch.number, item): scored
            for batch, answer in zip(batches, answers, strict=True)
            for item, scored in zip(batch.items, answer, strict=True)
        }

    async def _score_batch(self, batch: _Batch, key: str | None, deadline: float) -> list[Scored]:
        from tenacity import AsyncRetrying, retry_if_exception

        def is_last(state: tenacity.RetryCallState) -> bool:
            # An answer that comes too late is worth less than an error that says what the service answered.
            return state.attempt_number > self._retries or time.monotonic() + state.upcoming_sleep >= deadline

        retrying = AsyncRetrying(retry=retry_if_exception(_may_pass), wait=_pause, stop=is_last, reraise=True)
        content: bytes = await retrying(self._post, batch, key)
        try:
            scored, scale = self._endpoint.read(content, len(batch.items))
            if scale is not None and self._scale not in (None, scale):
                raise UnusableAnswerError(f"scores on the scale {scale!r}, where score_scale is {self._scale!r}")
        except UnusableAnswerError as error:
            raise RemoteError(
                f"{self.url} answered with {error}; expected one finite number per text: check url and api", 200
            ) from None
        self._reported_scale = scale
        return scored

    async def _post(self, batch: _Batch, key: str | None) -> bytes:
        import httpx

        body = self._endpoint.body(self._model, batch.query, batch.items, raw_scores=self._scale == "logit")
        headers = {**telemetry.trace_headers(), **self._headers}
        if key is not None:
            headers[self._key_header] = f"Bearer {key}" if self._key_header.lower() == "authorization" else key
        # Beside the address, which httpx writes into its log: a query is not shown.
        target = {"target": self._endpoint.target}
        client = self._connections.client()
        try:
            async with client.stream("POST", self.url, json=body, headers=headers, extensions=target) as response:
                content = await _read(response)
                problem = self._problem(response, content, key)
        # The last of these is a host whose name cannot be encoded.
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            kind = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
            problem = RemoteError(f"{self.url} cannot be reached: {kind}; expected a running service at this address")
        # Outside of the handler, since the error of httpx refers to the request, and so to the key.
        if problem is not None:
            raise problem
        return content

    def _problem(self, response: httpx.Response, content: bytes, key: str | None) -> RemoteError | None:
        """Return the error for a response, or ``None`` for one that may have scores."""
        status = response.status_code
        if len(content) > _MAX_ANSWER_BYTES:
            return RemoteError(f"{self.url} sent more than {_MAX_ANSWER_BYTES} bytes; expected scores", status)
        if status == 200:
            return None
        message = service_message(content, key) or f"a body of type {response.headers.get('content-type', '')[:60]!r}"
        advice = self._advice(status, response.headers.get("location", ""))
        after = _retry_after(response.headers.get("retry-after"))
        return RemoteError(f"{self.url} answered {status}: {message}; {advice}", status, after)

    def _advice(self, status: int, location: str) -> str:
        if 300 <= status < 400:
            host = _host(self.url, location)
            return f"it redirects to {host}; redirects are not followed, so give that address if you trust it"
        if status in (401, 403):
            return "expected an api_key or api_key_env that it accepts (a saved or pickled object has no api_key)"
        if status in (404, 405):
            return "expected the address of a reranker, and a model that it serves: check url, api and model"
        if status == 413:
            return "expected smaller requests: lower batch_size"
        if status == 429 or status >= 500:
            return f"expected it to accept requests again after {self._retries} retries and within {self._timeout:g} s"
        return "expected it to accept the request: check api, model and batch_size, and whether a text is too long"


class _Batch(NamedTuple):
    """A request: the number of its query among all queries, the query and some texts of it."""

    number: int
    query: str
    items: list[RemoteText]


# Scores by the number of the query and the text.
_Scores: TypeAlias = "Mapping[tuple[int, RemoteText], Scored]"


def _headers_beside_key(headers: Mapping[str, str] | None, key_header: str) -> dict[str, str]:
    """Return the headers of every request; refuse that of the key among them."""
    checked = checked_headers(headers)
    if key_header.lower() in (name.lower() for name in checked):
        raise InvalidInputError(f"{key_header!r} is api_key_header and one of headers; expected it once")
    return checked


class _Connections:
    """The HTTP client of a `RemoteReranker`: made on the background loop of each process at its first request."""

    def __init__(self, max_connections: int, connect_timeout: float) -> None:
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def client(self) -> httpx.AsyncClient:
        """Return the client of this process; only for the background loop, so that no lock is needed."""
        import httpx

        if self._client is None or self._pid != os.getpid():
            self._client = httpx.AsyncClient(
                limits=httpx.Limits(
                    max_connections=self._max_connections, max_keepalive_connections=self._max_connections
                ),
                # The time for a call as a whole ends the wait for an answer.
                timeout=httpx.Timeout(None, connect=self._connect_timeout),
                follow_redirects=False,
                headers={"User-Agent": "rerank-integrations"},
            )
            self._pid, self._loop = os.getpid(), asyncio.get_running_loop()
        return self._client

    async def close(self) -> None:
        """Close the client of this process; a forked child leaves its parent's alone."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            await client.aclose()

    def drop(self) -> None:
        """Close the client soon, from any thread."""
        if self._client is not None and self._loop is not None and self._pid == os.getpid():
            asyncio.run_coroutine_threadsafe(self.close(), self._loop)


async def _all_or_cancelled(calls: Sequence[Any]) -> list[list[Scored]]:
    """Return the results of all coroutines; when one fails, cancel the others, which `asyncio.gather` does not."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _host(url: str, location: str) -> str | None:
    """Return the host that a redirect of `url` leads to, without a user or a password; ``None`` if it names none."""
    try:
        host = urlsplit(urljoin(url, location)).hostname
    except ValueError:
        return None
    return host if host and host.isprintable() else None


async def _read(response: httpx.Response) -> bytes:
    """Return the body of a response, or a little more than the limit of a longer one."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            break
    return bytes(content)


def _may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later; reranking changes nothing, so it may be sent again."""
    return isinstance(error, RemoteError) and (error.status is None or error.status == 429 or error.status >= 500)


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt, with a random part so that many callers do not come at once."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RemoteError) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, _FIRST_PAUSE_SECONDS)
    longest = min(_MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** (state.attempt_number - 1))
    return random.uniform(longest / 2, longest)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which are given as such or as a date."""
    if value is None:
        return None
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, wait) if is_number(wait) else None


def _as_candidates(texts: Sequence[str]) -> list[Candidate]:
    require_texts(texts)
    return [Candidate(None, text) for text in texts]


def _checked_key(key: object, variable: object) -> str | None:
    """Return an API key that was given; no message shows it."""
    if variable is not None and (not isinstance(variable, str) or not variable):
        raise InvalidInputError(f"api_key_env is {variable!r}; expected the name of an environment variable")
    if key is None:
        return None
    if variable is not None:
        raise InvalidInputError("both api_key and api_key_env are given; expected one of them")
    if not isinstance(key, str):
        raise InvalidInputError(f"api_key is of type {type(key).__name__}; expected str")
    _require_header_value(key, "api_key")
    return key


def _require_header_value(key: str, name: str) -> None:
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise InvalidInputError(f"{name} is no API key; expected printable ASCII without spaces around it")


def _require_extra() -> None:
    try:
        import httpx  # noqa: F401
        import tenacity  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("remote", "RemoteReranker") from error
