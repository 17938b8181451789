"""Interfaces of remote rerankers: the addresses and bodies of their requests, and scores from their answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from rerank_integrations.core.reranking.candidates import Candidate, Scored
from rerank_integrations.core.types import ScoreScale, VectorSource
from rerank_integrations.errors import InvalidInputError

RemoteApi: TypeAlias = Literal["auto", "cohere", "jina", "vllm", "tei", "rerank-integrations"]
"""The interface of a remote reranker, explained at `RemoteReranker`."""

_DEFAULT_PATHS: dict[RemoteApi, str] = {
    "auto": "/v1/rerank",
    "cohere": "/v2/rerank",
    "jina": "/v1/rerank",
    "vllm": "/v1/rerank",
    "tei": "/rerank",
    # Its answers contain no documents.
    "rerank-integrations": "/v2/rerank",
}
# Text Embeddings Inference refuses more than 32 texts unless it is configured otherwise. Cohere charges per request of
# up to 100 documents.
_BATCH_SIZES = {"rerank": 100, "score": 100, "tei": 32}
_MAX_MESSAGE_CHARACTERS = 300
# Names of headers and parameters whose values are secrets, which have an argument of their own.
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|passw|credential|signature|^sig$|^code$", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Set by the request itself.
_FIXED_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})


class RemoteText(NamedTuple):
    """A text of a request, and the id under which the service may store it; ``None`` if no id is sent."""

    id: str | None
    text: str


class UnusableAnswerError(Exception):
    """The body of an answer is not one score per text; the message says what it is."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a remote reranker, and the shape of its requests and answers.

    Parameters
    ----------
    url
        The address that requests are sent to, without user, query and fragment; messages show it.
    query
        The query of that address, which no message shows.
    shape
        ``"rerank"`` (Cohere, Jina, vLLM and this package's service), ``"score"`` (vLLM) or ``"tei"``.
    sends_return_documents
        Whether to ask that documents be left out of the answer. Cohere's version 2 and vLLM have no such field, and
        leave them out or do not mind.
    sends_ids
        Whether texts are sent with the ids under which the service may store them.
    """

    url: str
    query: str
    shape: Literal["rerank", "score", "tei"]
    sends_return_documents: bool = False
    sends_ids: bool = False

    @classmethod
    def parse(cls, url: str, api: RemoteApi, params: Mapping[str, str] | None = None) -> Endpoint:
        """Return the endpoint of a base address, or of a whole one that ends in ``/rerank`` or ``/score``.

        Raises
        ------
        InvalidInputError
            For anything but an address of http or https without user and fragment, an unknown `api`, or parameters
            that are not strings, are given twice or are named like secrets.
        """
        if api not in get_args(RemoteApi):
            raise InvalidInputError(f"api is {api!r}; expected one of {', '.join(get_args(RemoteApi))}")
        parts = _checked_parts(url)
        path = parts.path.rstrip("/")
        if not path.endswith(("/rerank", "/score")):
            path += "/rerank" if path.endswith(("/v1", "/v2")) else _DEFAULT_PATHS[api]
        versioned = path.endswith(("/v1/rerank", "/v2/rerank"))
        whole, query = f"{parts.scheme}://{parts.netloc}{path}", _joined_query(parts.query, params)
        if path.endswith("/score"):
            if api not in ("auto", "vllm"):
                raise InvalidInputError(f"api is {api!r} with the address {whole!r}; expected 'vllm' for /score")
            return cls(whole, query, "score")
        if api == "tei" or (api == "auto" and not versioned):
            return cls(whole, query, "tei")
        sends_return_documents = api != "vllm" and not path.endswith("/v2/rerank")
        return cls(whole, query, "rerank", sends_return_documents, api == "rerank-integrations")

    @property
    def target(self) -> bytes:
        """The path and the query of the address, as the first line of a request has them."""
        path = quote(urlsplit(self.url).path, safe="/%:@!$&'()*+,;=~-._")
        return (f"{path}?{self.query}" if self.query else path).encode("ascii")

    def item(self, candidate: Candidate) -> RemoteText:
        """Return what of a candidate is sent."""
        return RemoteText(candidate.id if self.sends_ids else None, candidate.text)

    @property
    def batch_size(self) -> int:
        """The number of texts in a request by default."""
        return _BATCH_SIZES[self.shape]

    def body(
        self, model: str | None, query: str, items: Sequence[RemoteText], *, raw_scores: bool
    ) -> dict[str, object]:
        """Return the body of a request for the scores of all of `items`."""
        texts = [item.text for item in items]
        if self.shape == "tei":
            return {"query": query, "texts": texts, "raw_scores": raw_scores}
        named: dict[str, object] = {} if model is None else {"model": model}
        if self.shape == "score":
            return {**named, "text_1": query, "text_2": texts}
        documents = [item.text if item.id is None else {"id": item.id, "text": item.text} for item in items]
        whole = {**named, "query": query, "documents": documents, "top_n": len(texts)}
        return {**whole, "return_documents": False} if self.sends_return_documents else whole

    def read(self, content: bytes, count: int) -> tuple[list[Scored], ScoreScale | None]:
        """Return one score per text of the request, in their order, and the scale if the answer names it.

        Raises
        ------
        UnusableAnswerError
            Unless `content` has one finite number for each of `count` texts.
        """
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise UnusableAnswerError("a body that is not JSON") from None
        key = {"tei": None, "score": "data", "rerank": "results"}[self.shape]
        rows = answer if key is None else answer.get(key) if isinstance(answer, Mapping) else None
        if not isinstance(rows, list):
            raise UnusableAnswerError("no list of results" if key is None else f"no list under {key!r}")
        scored: dict[int, Scored] = {}
        for row in rows:
            index, value = self._read_row(row, count)
            if index in scored:
                raise UnusableAnswerError(f"two scores for text number {index}")
            scored[index] = value
        if len(scored) < count:
            missing = next(number for number in range(count) if number not in scored)
            raise UnusableAnswerError(f"{len(scored)} scores for {count} texts, none for text number {missing}")
        scale = answer.get("score_scale") if isinstance(answer, Mapping) else None
        return [scored[number] for number in range(count)], scale if scale in get_args(ScoreScale) else None

    def _read_row(self, row: object, count: int) -> tuple[int, Scored]:
        if not isinstance(row, Mapping):
            raise UnusableAnswerError(f"a result of type {type(row).__name__}")
        index, name = row.get("index"), "relevance_score" if self.shape == "rerank" else "score"
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise UnusableAnswerError(f"the index {str(index)[:20]} for {count} texts")
        value, note = row.get(name), row.get("note")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise UnusableAnswerError(f"{str(value)[:20]} as {name} of text number {index}")
        # This package's own service reports what it cut, and whose vectors it used; others do not.
        notes = note if isinstance(note, Mapping) else {}
        vectors = notes.get("vectors_from")
        return index, Scored(
            float(value),
            truncated=notes.get("truncated") is True,
            query_truncated=notes.get("query_truncated") is True,
            vectors=vectors if vectors in get_args(VectorSource) else None,
        )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # A whole number beyond the range of floats.
        return False


def _checked_parts(url: object) -> SplitResult:
    """Return the parts of an address; a refused one is not shown, because it may contain a password."""
    expected = "expected an address such as 'http://127.0.0.1:8000' or 'https://api.cohere.com/v2/rerank'"
    if not isinstance(url, str):
        raise InvalidInputError(f"url is of type {type(url).__name__}; {expected}")
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        valid = False
    else:
        if "@" in parts.netloc:
            raise InvalidInputError("url contains a user or a password; expected an address alone, and the api_key")
        if parts.fragment:
            raise InvalidInputError("url contains a fragment (#...); expected an address alone")
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInputError(f"url is not an address of http or https; {expected}")
    return parts


def _joined_query(query: str, params: Mapping[str, str] | None) -> str:
    """Return the query of an address with more parameters; what may be a secret is refused and not shown."""
    named = _checked_pairs(params, "params")
    given = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    for name in given:
        _require_not_secret(name, "the parameter", "url")
    for name in named:
        _require_not_secret(name, "the parameter", "params")
        if name in given:
            raise InvalidInputError(f"the parameter {name!r} is in url and in params; expected it once")
    return "&".join(part for part in (query, urlencode(named, quote_via=quote)) if part)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers that each request has beside those of its body.

    Raises
    ------
    InvalidInputError
        For names or values that no header has, a name that is like that of a secret, or a header that is given twice or
        set by the request itself. No message shows a value.
    """
    named = _checked_pairs(headers, "headers")
    for name, value in named.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidInputError(f"headers contains the name {name!r}; expected letters, digits and '-'")
        if name.lower() in _FIXED_HEADERS:
            raise InvalidInputError(f"headers contains {name!r}, which the request sets itself; expected others")
        _require_not_secret(name, "the header", "headers")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise InvalidInputError(f"the value of the header {name!r}: expected printable ASCII")
    if len({name.lower() for name in named}) < len(named):
        raise InvalidInputError(f"headers contains {sorted(named)}; expected each name once, in any case")
    return named


def checked_key_header(name: object) -> str:
    """Return the name of the header that has the API key; errors as of `checked_headers`."""
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _FIXED_HEADERS:
        raise InvalidInputError(f"api_key_header is {name!r}; expected the name of a header, such as 'api-key'")
    return name


def _checked_pairs(pairs: object, argument: str) -> dict[str, str]:
    if pairs is None:
        return {}
    if not isinstance(pairs, Mapping):
        raise InvalidInputError(f"{argument} is of type {type(pairs).__name__}; expected a mapping of strings, or None")
    for name, value in pairs.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"{argument} contains the name {name!r}; expected a string")
        if not isinstance(value, str):
            kind = type(value).__name__
            raise InvalidInputError(f"the value of {name!r} in {argument} is of type {kind}; expected a string")
        _require_encodable(f"{name}{value}", argument)
    return dict(pairs)


def _require_encodable(text: str, argument: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(f"{argument} contains a lone surrogate; expected text that UTF-8 can encode") from None


def _require_not_secret(name: str, kind: str, argument: str) -> None:
    # They are saved with a component, and an address is shown by proxies and in logs.
    if _SECRET_NAME.search(name):
        raise InvalidInputError(
            f"{kind} {name!r} in {argument} may be a secret; expected it as api_key or api_key_env, with the name of "
            "its header as api_key_header"
        )


def service_message(content: bytes, key: str | None) -> str | None:
    """Return the message in the body of an error answer, short and on one line; ``None`` if there is none.

    Services quote a wrong API key, so `key` is replaced.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    for name in ("message", "detail", "error"):
        value = answer.get(name) if isinstance(answer, Mapping) else None
        if isinstance(value, Mapping):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            shown = value if key is None else value.replace(key, "[the API key]")
            return "".join(letter if letter.isprintable() else " " for letter in shown)[:_MAX_MESSAGE_CHARACTERS]
    return None
