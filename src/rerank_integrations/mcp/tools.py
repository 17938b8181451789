"""The tools: what agents read about them, and a call's way to the service and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from mcp import MCPError
from mcp.types import INVALID_PARAMS, CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError

from rerank_integrations.core.reranking import Candidate
from rerank_integrations.core.reranking.reranker import require_query
from rerank_integrations.core.types import to_passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.mcp import answers, arguments
from rerank_integrations.server.answering import wait_for_answer
from rerank_integrations.server.errors import problem_of
from rerank_integrations.server.schemas import (
    DeleteResponse,
    PassagesResponse,
    PutResponse,
    SearchResponse,
    hit_body,
    stored_passage,
)
from rerank_integrations.server.service import Search, Service

if TYPE_CHECKING:
    from starlette.requests import Request

_logger = logging.getLogger("rerank_integrations.server")
_MAX_SHOWN_PROBLEMS = 5
_MAX_SHOWN_CHARACTERS = 100
# With a reranker, how many passages it reads for each one that is asked for, and at least.
_CANDIDATES_PER_HIT, _MIN_CANDIDATES = 5, 50
_DEFAULT_LIMIT = 10


class Answer(NamedTuple):
    """The answer to a call, for programs and as text."""

    structured: BaseModel
    text: str


@dataclass(frozen=True)
class _Kind:
    """A tool without the names and limits of a service.

    Parameters
    ----------
    description
        What an agent reads in order to choose the tool.
    hints
        What a client may show or ask its user before a call.
    arguments
        Return the model of the arguments for a service.
    answer
        The model of the structured answer.
    run
        Do the work.
    """

    title: str
    description: str
    hints: ToolAnnotations
    arguments: Callable[[Service], type[BaseModel]]
    answer: type[BaseModel]
    run: Callable[[Service, Any], Coroutine[Any, Any, Answer]]


class Tools:
    """The tools over a service: those that it can serve, and none that writes unless it is writable.

    Parameters
    ----------
    service
        The service.
    about
        What the indexes contain, in a sentence for agents.
    """

    def __init__(self, service: Service, about: str | None = None) -> None:
        self._service = service
        names = [*(_READING if service.indexes else ()), "rerank"]
        if service.indexes and service.settings.writable:
            names += _WRITING
        self._kinds = {name: _KINDS[name] for name in names}
        self._arguments = {name: kind.arguments(service) for name, kind in self._kinds.items()}
        self.definitions = [self._definition(name, about) for name in names]

    async def call(self, name: str, given: Mapping[str, Any], request: Request | None = None) -> CallToolResult:
        """Call a tool. Errors about the arguments, and those of the service, are results that a model can read.

        Parameters
        ----------
        request
            The HTTP request of the call, if there is one: the work stops when its client is gone.

        Raises
        ------
        MCPError
            If there is no such tool.
        """
        if name not in self._kinds:
            message = f"unknown tool {name[:_MAX_SHOWN_CHARACTERS]!r}; expected one of {', '.join(self._kinds)}"
            raise MCPError(INVALID_PARAMS, message)
        settings, started, code = self._service.settings, time.perf_counter(), None
        try:
            call = self._arguments[name].model_validate(given)
            seconds = settings.write_timeout if name in _WRITING else settings.timeout
            answer = await wait_for_answer(request, self._kinds[name].run(self._service, call), seconds)
            return CallToolResult(
                content=[TextContent(type="text", text=answer.text)],
                structured_content=answer.structured.model_dump(mode="json", exclude_none=True),
            )
        except ValidationError as error:
            code = "invalid_input"
            return _failed(_argument_problems(error, list(self._arguments[name].model_fields)))
        except Exception as error:
            code = problem_of(error).code
            return _failed(self._message(name, error))
        finally:
            fields = {"tool": name, "ms": round((time.perf_counter() - started) * 1000, 1)}
            _logger.info("tool call", extra=fields if code is None else {**fields, "error": code})

    def _definition(self, name: str, about: str | None) -> Tool:
        kind = self._kinds[name]
        contents = f"\nWhat is stored: {about}" if about and name != "rerank" else ""
        return Tool(
            name=name,
            title=kind.title,
            description=kind.description + contents,
            input_schema=self._arguments[name].model_json_schema(),
            output_schema=kind.answer.model_json_schema(),
            annotations=kind.hints,
        )

    def _message(self, name: str, error: Exception) -> str:
        problem = problem_of(error)
        if problem.status >= 500 and problem.status != HTTPStatus.GATEWAY_TIMEOUT:
            _logger.error("the tool %s failed", name, exc_info=error)
        if problem.code == "internal_error":
            return f"the tool {name} failed; the log of the server has the details"
        return problem.message or self._service.message_of(error)


def _failed(message: str) -> CallToolResult:
    # A lone surrogate of the client's has no UTF-8.
    text = message.encode("utf-8", "backslashreplace").decode("utf-8")
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _argument_problems(error: ValidationError, known: Sequence[str]) -> str:
    """Return what is wrong with the arguments in words that a model can act on."""
    problems = error.errors(include_url=False)
    shown = []
    for problem in problems[:_MAX_SHOWN_PROBLEMS]:
        name = ".".join(map(str, problem["loc"]))[:_MAX_SHOWN_CHARACTERS]
        if problem["type"] == "extra_forbidden":
            expected = f"; expected {', '.join(known)}" if len(problem["loc"]) == 1 else ""
            shown.append(f"unknown argument {name}{expected}")
        elif problem["type"] == "missing":
            shown.append(f"the argument {name} is missing")
        else:
            given = repr(problem["input"])
            given = given if len(given) <= _MAX_SHOWN_CHARACTERS else given[:_MAX_SHOWN_CHARACTERS] + "…"
            shown.append(f"{name} is {given}: {problem['msg']}")
    if len(problems) > len(shown):
        shown.append(f"{len(problems) - len(shown)} more problems")
    return "; ".join(shown)


async def _search(service: Service, call: Any) -> Answer:
    index, reranker = getattr(call, "index", None), getattr(call, "reranker", None)
    require_query(call.query)
    if reranker is None:
        hits = await service.search(Search(call.query, call.k, call.where), index)
    else:
        depth = min(
            max(_CANDIDATES_PER_HIT * call.k, _MIN_CANDIDATES), service.settings.max_k, service.settings.max_texts
        )
        wanted = Search(call.query, max(depth, call.k), call.where)
        hits = await service.search_and_rerank(wanted, reranker, call.k, index)
    bodies = [hit_body(hit) for hit in hits]
    answer = SearchResponse(index=service.index_name(index), reranker=reranker, hits=bodies)
    return Answer(answer, answers.search_text(answer))


async def _rerank(service: Service, call: Any) -> Answer:
    model = getattr(call, "model", None) or service.models[0]
    ranked = await service.rerank(call.query, [Candidate(None, text) for text in call.documents], model)
    answer = answers.rerank_answer(model, ranked, call.top_n)
    return Answer(answer, answers.rerank_text(answer, call.documents))


async def _get(service: Service, call: Any) -> Answer:
    index, where, limit = getattr(call, "index", None), call.where, call.limit
    if call.ids is None:
        where = {} if where is None else where
        limit = min(_DEFAULT_LIMIT, service.settings.max_texts) if limit is None else limit
    passages = await service.get(index, ids=call.ids, where=where, limit=limit, offset=call.offset)
    answer = PassagesResponse(index=service.index_name(index), passages=[stored_passage(item) for item in passages])
    return Answer(answer, answers.get_text(answer))


async def _add(service: Service, call: Any) -> Answer:
    index = getattr(call, "index", None)
    ids = await service.upsert([to_passage(item.model_dump()) for item in call.passages], index)
    answer = PutResponse(index=service.index_name(index), ids=ids)
    return Answer(answer, answers.add_text(answer))


async def _delete(service: Service, call: Any) -> Answer:
    index = getattr(call, "index", None)
    if (call.ids is None) == (call.where is None):
        raise InvalidInputError("ids and where are both absent or both given; expected one of them")
    deleted = await service.delete(index, ids=call.ids, where=call.where)
    answer = DeleteResponse(index=service.index_name(index), deleted=deleted)
    return Answer(answer, answers.delete_text(answer))


# Nothing outside the indexes is reached by any of them.
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
# A passage of the same id is replaced, and the same call again changes nothing.
_CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

_READING = ("search", "get")
_WRITING = ("add", "delete")
_KINDS: Mapping[str, _Kind] = {
    "search": _Kind(
        title="Search passages",
        description=(
            "Find the stored passages that answer a question best, by meaning and by wording. Ask in a full sentence, "
            "in the words that an answer may contain. Returns the passages with their ids, metadata and scores, best "
            "first; a score compares passages of the same query only. The best passages are returned even if none "
            "answers the question: read them before relying on them."
        ),
        hints=_READS,
        arguments=arguments.search_arguments,
        answer=SearchResponse,
        run=_search,
    ),
    "get": _Kind(
        title="Read stored passages",
        description=(
            "Read stored passages by their ids, or those that meet a condition on metadata, in the order in which they "
            "were added. Without arguments: the first ones, which show what metadata passages have."
        ),
        hints=_READS,
        arguments=arguments.get_arguments,
        answer=PassagesResponse,
        run=_get,
    ),
    "rerank": _Kind(
        title="Rank texts",
        description=(
            "Order texts of your own, such as the results of a web search, by how well they answer a question. "
            "Returns positions in your list with scores, best first; nothing is stored."
        ),
        hints=_READS,
        arguments=arguments.rerank_arguments,
        answer=answers.RerankAnswer,
        run=_rerank,
    ),
    "add": _Kind(
        title="Store passages",
        description=(
            "Store passages, so that they are found by search from now on. A passage replaces the stored one of the "
            "same id. All are stored, or none if one cannot be. Returns their ids."
        ),
        hints=_CHANGES,
        arguments=arguments.add_arguments,
        answer=PutResponse,
        run=_add,
    ),
    "delete": _Kind(
        title="Remove passages",
        description=(
            "Remove stored passages for good, by their ids or by a condition on metadata (one of the two). Unknown ids "
            "are ignored. Returns how many were removed."
        ),
        hints=_CHANGES,
        arguments=arguments.delete_arguments,
        answer=DeleteResponse,
        run=_delete,
    ),
}
