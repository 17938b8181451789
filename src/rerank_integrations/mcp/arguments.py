"""The arguments of each tool: models whose JSON schemas agents read, with the names and limits of one service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, create_model

from rerank_integrations.server.schemas import PassageBody, Request
from rerank_integrations.server.service import Service

_FILTER = (
    'Condition on metadata, as in MongoDB: {"year": {"$gte": 2023}, "kind": "report"}. Operators on a field: $eq, $ne, '
    "$gt, $gte, $lt, $lte, $in, $nin, $contains (part of a string, item of a list), $exists, $not. "
    "$and, $or and $not take whole conditions."
)
Where = Annotated[dict[str, JsonValue] | None, Field(description=_FILTER, examples=[{"year": {"$gte": 2023}}])]


def _without_empty_conditions(where: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
    """Refuse a condition that is empty, or has an empty one in it: an agent must not empty an index by accident."""
    if where is not None and _has_empty_condition(where):
        raise ValueError("an empty condition is met by every passage; expected conditions on metadata")
    return where


def _has_empty_condition(where: JsonValue) -> bool:
    if isinstance(where, list):
        return any(_has_empty_condition(item) for item in where)
    if not isinstance(where, dict):
        return False
    return not where or any(_has_empty_condition(value) for key, value in where.items() if key.startswith("$"))


SomeWhere = Annotated[
    dict[str, JsonValue] | None, Field(min_length=1, description=_FILTER), AfterValidator(_without_empty_conditions)
]
Ids = list[Annotated[str, Field(min_length=1)]] | None


def search_arguments(service: Service) -> type[Request]:
    """Return the arguments of ``search``: `index` and `reranker` only where there is something to choose."""
    k = Field(ge=1, le=service.settings.max_k, description="How many passages to return.")
    fields: dict[str, Any] = {"query": (_query(), ...), "k": (Annotated[int, k], 5), "where": (Where, None)}
    rerankers = [name for name in service.models if name not in service.indexes]
    if rerankers:
        text = "A model that orders the best passages again by reading each together with the query: better and slower."
        fields["reranker"] = (Annotated[_one_of(rerankers) | None, Field(description=text)], None)
    return _model("SearchArguments", {**fields, **_index(service)})


def rerank_arguments(service: Service) -> type[Request]:
    """Return the arguments of ``rerank``: `model` only where there are several."""
    documents = Field(min_length=1, max_length=service.settings.max_texts, description="The texts to rank.")
    top_n = Field(ge=1, description="How many of the best to return; all by default.")
    fields: dict[str, Any] = {
        "query": (_query(), ...),
        "documents": (Annotated[list[str], documents], ...),
        "top_n": (Annotated[int | None, top_n], None),
    }
    if len(service.models) > 1:
        text = f"The model that reads the texts; {service.models[0]!r} by default."
        fields["model"] = (Annotated[_one_of(service.models) | None, Field(description=text)], None)
    return _model("RerankArguments", fields)


def get_arguments(service: Service) -> type[Request]:
    """Return the arguments of ``get``."""
    most = service.settings.max_texts
    ids = Field(max_length=most, description="Ids of passages. Unknown ones are omitted from the answer.")
    limit = Field(ge=1, le=most, description="How many passages to return at most, without ids; 10 by default.")
    offset = Field(ge=0, le=2**63 - 1, description="How many passages to skip before them, without ids.")
    fields: dict[str, Any] = {
        "ids": (Annotated[Ids, ids], None),
        "where": (Where, None),
        "limit": (Annotated[int | None, limit], None),
        "offset": (Annotated[int, offset], 0),
    }
    return _model("GetArguments", {**fields, **_index(service)})


def add_arguments(service: Service) -> type[Request]:
    """Return the arguments of ``add``."""
    passages = Field(
        min_length=1,
        max_length=service.settings.max_texts,
        description=(
            "Texts to store: a paragraph or two each. `id` is made from the text if absent. "
            "`metadata` is a JSON object that later searches can filter by."
        ),
    )
    return _model("AddArguments", {"passages": (Annotated[list[PassageBody], passages], ...), **_index(service)})


def delete_arguments(service: Service) -> type[Request]:
    """Return the arguments of ``delete``."""
    ids = Field(min_length=1, max_length=service.settings.max_texts, description="Ids of passages to remove.")
    fields: dict[str, Any] = {"ids": (Annotated[Ids, ids], None), "where": (SomeWhere, None)}
    return _model("DeleteArguments", {**fields, **_index(service)})


def _model(name: str, fields: dict[str, Any]) -> type[Request]:
    return create_model(name, __base__=Request, **fields)


def _query() -> Any:
    return Annotated[str, Field(min_length=1, description="A question or a description in plain language.")]


def _index(service: Service) -> dict[str, Any]:
    names = list(service.indexes)
    if len(names) < 2:
        return {}
    return {"index": (Annotated[_one_of(names), Field(description="The index to use.")], ...)}


def _one_of(names: list[str]) -> Any:
    return Literal[tuple(names)]
