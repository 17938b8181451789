"""Interfaces of remote rerankers: the addresses and bodies of their requests, and scores from their answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, urlsplit

from rerank_integrations.core.reranking.candidates import Scored
from rerank_integrations.core.types import ScoreScale
from rerank_integrations.errors import InvalidInputError

RemoteApi: TypeAlias = Literal["auto", "cohere", "jina", "vllm", "tei"]
"""The interface of a remote reranker, explained at `RemoteReranker`."""

_DEFAULT_PATHS: dict[RemoteApi, str] = {
    "auto": "/v1/rerank",
    "cohere": "/v2/rerank",
    "jina": "/v1/rerank",
    "vllm": "/v1/rerank",
    "tei": "/rerank",
}
# Text Embeddings Inference refuses more than 32 texts unless it is configured otherwise. Cohere charges per request of
# up to 100 documents.
_BATCH_SIZES = {"rerank": 100, "score": 100, "tei": 32}
_MAX_MESSAGE_CHARACTERS = 300


class UnusableAnswerError(Exception):
    """The body of an answer is not one score per text; the message says what it is."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a remote reranker, and the shape of its requests and answers.

    Parameters
    ----------
    url
        The address that requests are sent to, without user, query and fragment.
    shape
        ``"rerank"`` (Cohere, Jina, vLLM and this package's service), ``"score"`` (vLLM) or ``"tei"``.
    sends_return_documents
        Whether to ask that documents be left out of the answer. Cohere's version 2 and vLLM have no such field, and
        leave them out or do not mind.
    """

    url: str
    shape: Literal["rerank", "score", "tei"]
    sends_return_documents: bool

    @classmethod
    def parse(cls, url: str, api: RemoteApi) -> Endpoint:
        """Return the endpoint of a base address, or of a whole one that ends in ``/rerank`` or ``/score``.

        Raises
        ------
        InvalidInputError
            For anything but an address of http or https without user, query and fragment, or an unknown `api`.
        """
        if api not in get_args(RemoteApi):
            raise InvalidInputError(f"api is {api!r}; expected one of {', '.join(get_args(RemoteApi))}")
        parts = _checked_parts(url)
        path = parts.path.rstrip("/")
        if not path.endswith(("/rerank", "/score")):
            path += "/rerank" if path.endswith(("/v1", "/v2")) else _DEFAULT_PATHS[api]
        versioned = path.endswith(("/v1/rerank", "/v2/rerank"))
        whole = f"{parts.scheme}://{parts.netloc}{path}"
        if path.endswith("/score"):
            if api not in ("auto", "vllm"):
                raise InvalidInputError(f"api is {api!r} with the address {whole!r}; expected 'vllm' for /score")
            return cls(whole, "score", False)
        if api == "tei" or (api == "auto" and not versioned):
            return cls(whole, "tei", False)
        return cls(whole, "rerank", api != "vllm" and not path.endswith("/v2/rerank"))

    @property
    def batch_size(self) -> int:
        """The number of texts in a request by default."""
        return _BATCH_SIZES[self.shape]

    def body(self, model: str | None, query: str, texts: Sequence[str], *, raw_scores: bool) -> dict[str, object]:
        """Return the body of a request for the scores of all of `texts`."""
        if self.shape == "tei":
            return {"query": query, "texts": list(texts), "raw_scores": raw_scores}
        named: dict[str, object] = {} if model is None else {"model": model}
        if self.shape == "score":
            return {**named, "text_1": query, "text_2": list(texts)}
        whole = {**named, "query": query, "documents": list(texts), "top_n": len(texts)}
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
        # This package's own service reports what it cut; others do not.
        notes = note if isinstance(note, Mapping) else {}
        truncated, query_truncated = notes.get("truncated") is True, notes.get("query_truncated") is True
        return index, Scored(float(value), truncated=truncated, query_truncated=query_truncated)


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
        if parts.query or parts.fragment:
            raise InvalidInputError("url contains a query or a fragment; expected an address alone, and the api_key")
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInputError(f"url is not an address of http or https; {expected}")
    return parts


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
