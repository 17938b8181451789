"""LlamaIndex metadata filters as the core's Mongo-style conditions."""

from __future__ import annotations

import sys

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from rerank_integrations.errors import InvalidInputError

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
}
# Operators that contain several values.
_OF_SEVERAL = {FilterOperator.ANY: "$or", FilterOperator.ALL: "$and"}


def filters_to_where(filters: MetadataFilters | None) -> dict[str, object] | None:
    """Translate `filters`, nested ones too; ``None`` and an empty list of filters match everything.

    Raises
    ------
    InvalidInputError
        For an operator or a value that has no exact translation, naming it.
    """
    if filters is None or not filters.filters:
        return None
    parts = [_part(part) for part in filters.filters]
    if filters.condition is FilterCondition.OR:
        return {"$or": parts}
    if filters.condition is FilterCondition.NOT:
        # LlamaIndex means that none of them is true.
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _part(part: MetadataFilter | MetadataFilters) -> dict[str, object]:
    if isinstance(part, MetadataFilters):
        return filters_to_where(part) or {}
    key, operator, value = part.key, part.operator, part.value
    if operator is FilterOperator.IS_EMPTY:
        return _is_empty(key)
    if value is None:
        raise InvalidInputError(
            f"the filter {operator.value!r} on {key!r} has the value None; "
            f"expected a value, or the operator {FilterOperator.IS_EMPTY.value!r}"
        )
    if operator in _OF_SEVERAL:
        if not isinstance(value, list) or not value:
            raise InvalidInputError(
                f"the filter {operator.value!r} on {key!r} has the value {value!r}; expected a list of values"
            )
        return {_OF_SEVERAL[operator]: [{key: {"$contains": item}} for item in value]}
    if operator not in _OPERATORS:
        known = ", ".join(repr(known.value) for known in (*_OPERATORS, *_OF_SEVERAL, FilterOperator.IS_EMPTY))
        raise InvalidInputError(
            f"the filter operator {operator.value!r} on {key!r} is not supported; expected one of {known}"
        )
    return {key: {_OPERATORS[operator]: value}}


def _is_empty(key: str) -> dict[str, object]:
    # The second part, because a condition on None or "" is also true for a list with such an item among others.
    something = [{key: {"$gt": ""}}, {key: {"$gte": -sys.float_info.max}}, {key: {"$in": [True, False]}}]
    return {"$and": [{"$or": [{key: None}, {key: ""}, {key: {"$eq": []}}]}, {"$not": {"$or": something}}]}
