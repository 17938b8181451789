"""LangChain's structured queries as filters of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)

from rerank_integrations.errors import InvalidInputError

Filter: TypeAlias = dict[str, Any]

_COMPARATORS = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
}


class ColBERTFilterTranslator(Visitor):
    """Translate LangChain's structured queries into the filters of a `ColBERTIndex`.

    For a self-query retriever over a `ColBERTVectorStore`. Its language model is offered the comparators and operators
    that map exactly. ``contain`` and ``like`` mean different things in different stores, and are refused; a filter of
    your own may have ``$contains``.

    A date, as LangChain's parser gives it, is compared as the ISO 8601 text that it has, so store dates as such texts.
    """

    allowed_comparators: Sequence[Comparator] | None = tuple(_COMPARATORS)
    allowed_operators: Sequence[Operator] | None = tuple(Operator)

    def visit_operation(self, operation: Operation) -> Filter:
        """Return the filter of a conjunction, a disjunction or a negation.

        Raises
        ------
        InvalidInputError
            If it has no arguments, a negation of several, or a comparator that is refused within them.
        """
        arguments: list[Filter] = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is Operator.NOT:
            if len(arguments) != 1:
                raise InvalidInputError(f"not has {len(arguments)} arguments; expected one")
            return {"$not": arguments[0]}
        if not arguments:
            raise InvalidInputError(f"{operation.operator.value} has no arguments; expected at least one")
        return {f"${operation.operator.value}": arguments}

    def visit_comparison(self, comparison: Comparison) -> Filter:
        """Return the filter of a comparison.

        Raises
        ------
        InvalidInputError
            If the comparator is ``contain`` or ``like``.
        """
        operator = _COMPARATORS.get(comparison.comparator)
        if operator is None:
            allowed = ", ".join(comparator.value for comparator in _COMPARATORS)
            raise InvalidInputError(
                f"the comparator of {comparison.attribute!r} is {comparison.comparator.value!r}; expected {allowed}"
            )
        return {comparison.attribute: {operator: _value(comparison.value)}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Filter]]:
        """Return the query's text, and the arguments of the vector store's search."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def _value(value: object) -> object:
    # LangChain's parser makes {"date": "2024-01-31", "type": "date"} of a date, and the like of a time.
    if isinstance(value, Mapping) and value.get("type") in ("date", "datetime"):
        return value.get(value["type"])
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    return value
