"""Bodies of JSON: parsed and checked in one step, the large ones off the event loop and only if it takes little time.

Parsers of JSON keep the interpreter's lock from the beginning of a body to its end, on any thread. Texts pass through
them at memory speed, but each value costs an object: ten megabytes of ``[],[],[]`` would stop all other requests for
seconds. So the values of a large body are counted first, by NumPy, which does without the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.server.errors import NotJSONError

# Smaller bodies take about a millisecond, whatever they contain.
_SMALL_BYTES = 2**16
# A thousand passages with two hundred values of metadata each.
MAX_VALUES = 200_000
_CHUNK_BYTES = 2**20
_MAX_SHOWN_PROBLEMS = 5
_MAX_LISTED_PROBLEMS = 1000


class ModelRoute(APIRoute):
    """Route whose body is read by `read_model` in place of the framework."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handler = super().get_route_handler()
        field = self.body_field
        model = None if field is None else field.field_info.annotation
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            return handler

        async def handle(request: Request) -> Response:
            return await handler(_ModelRequest(request, model))

        return handle


class _ModelRequest(Request):
    """Request whose JSON is read as an instance of a model, which the framework then takes as it is."""

    def __init__(self, request: Request, model: type[BaseModel]) -> None:
        super().__init__(request.scope, request.receive)
        self._model = model

    async def json(self) -> BaseModel:
        """Return the body as an instance of the model; errors as of `read_model`."""
        body = await self.body()
        if len(body) <= _SMALL_BYTES:
            return read_model(body, self._model)
        return await run_blocking(_read_large_model, body, self._model)


def read_model(body: bytes, model: type[BaseModel]) -> BaseModel:
    """Return the instance of `model` that a body of JSON describes.

    Raises
    ------
    NotJSONError
        If it is not JSON in UTF-8, or nested too deeply.
    InvalidInputError
        If it does not fit the model.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_LISTED_PROBLEMS:
            # Listing them would take longer than parsing the body did.
            raise InvalidInputError(f"the body has {error.error_count()} values that do not fit") from None
        problems: list[Any] = error.errors(include_url=False, include_context=False, include_input=False)
    message = problems_in_words([{**problem, "loc": ("body", *problem["loc"])} for problem in problems])
    if problems[0]["type"] == "json_invalid":
        raise NotJSONError(message)
    raise InvalidInputError(message)


def _read_large_model(body: bytes, model: type[BaseModel]) -> BaseModel:
    if count_values(body) > MAX_VALUES:
        raise InvalidInputError(f"the body has more than {MAX_VALUES} values; expected fewer in one request")
    return read_model(body, model)


def count_values(body: bytes) -> int:
    """Return how many values a body of JSON has at most: its commas and opening brackets outside of strings.

    It counts no further than some way beyond `MAX_VALUES`. Of bytes that are not JSON it counts anything.
    """
    count, within, start = 0, False, 0
    while start < len(body) and count <= MAX_VALUES:
        chunk = body[start : start + _CHUNK_BYTES]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:
            # The last byte escapes the first one of the next chunk.
            chunk = body[start : start + _CHUNK_BYTES + 1]
        start += len(chunk)
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        letters = np.frombuffer(chunk, np.uint8)
        if not letters.size:
            continue
        in_string = np.logical_xor.accumulate(letters == ord('"')) ^ within
        structural = (letters == ord(",")) | (letters == ord("[")) | (letters == ord("{"))
        count += int(np.count_nonzero(structural & ~in_string))
        within = bool(in_string[-1])
    return count


def problems_in_words(problems: Sequence[Any]) -> str:
    """Return the first of pydantic's problems with a body or parameters, and how many there are beside them."""
    shown = [f"{'.'.join(map(str, item['loc']))[:100]}: {item['msg']}" for item in problems[:_MAX_SHOWN_PROBLEMS]]
    if len(problems) > len(shown):
        shown.append(f"{len(problems) - len(shown)} more")
    return "; ".join(shown)
