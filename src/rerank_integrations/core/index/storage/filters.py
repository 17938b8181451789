"""Conditions on passages as SQL: Mongo-style filters over metadata, and lists of ids."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from rerank_integrations.core.index.storage.validation import plain_scalar, remedy, shown
from rerank_integrations.errors import InvalidInputError

# A condition, and the values of its parameters.
Sql: TypeAlias = tuple[str, list[str | int | float]]

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_EXPECTED = "expected a string, a finite number (whole ones below 2**63), a bool or None"
# A name of at most so many dots is read as any mixture of nested keys and keys with dots (32 paths); one of more dots
# as nested keys, or as one key.
_MAX_MIXED_DOTS = 5
_BY_ID = "id IN (SELECT value FROM json_each(?))"
_OPERATORS = ("$eq", "$ne", *_COMPARISONS, "$in", "$nin", "$contains", "$exists", "$not")


def compile_selection(where: Mapping[str, object] | None, ids: Sequence[str] | None) -> Sql | None:
    """Turn a filter and a list of ids into the condition that both hold; ``None`` for every passage.

    Raises
    ------
    InvalidInputError
        See `compile_filter`; or if the filter is nested too deep.
    """
    try:
        clauses = [] if where is None else [compile_filter(where)]
    except RecursionError as error:
        raise InvalidInputError("the filter is nested too deep; expected a flatter one") from error
    if ids is not None:
        clauses.append((_BY_ID, [json_ids(ids)]))
    if not clauses:
        return None
    return (
        " AND ".join(f"({sql})" for sql, _ in clauses),
        [value for _, parameters in clauses for value in parameters],
    )


def names_ids(condition: Sql) -> bool:
    """Return whether a condition of `compile_selection` lists ids, so that it will hardly come again."""
    return _BY_ID in condition[0]


def json_ids(ids: Sequence[str]) -> str:
    """Return `ids` as one SQL parameter, for ``IN (SELECT value FROM json_each(?))``."""
    # SQLite ends a JSON string at a NUL, so "a\0b" would mean "a"; no stored id holds one.
    return json.dumps([passage_id for passage_id in ids if "\0" not in passage_id])


def compile_filter(where: object) -> Sql:
    """Turn a filter into an SQL condition on a row's ``metadata`` column, and its parameters.

    The meaning is MongoDB's: ``$ne`` and ``$nin`` also hold where the field is absent; a condition on a list holds
    if it holds for one of its items; values of different types are never equal and never ordered; ``$eq`` with ``[]``
    is the empty list. ``$contains`` is not MongoDB's: a string has that part, or a list that item. ``{}`` matches all.

    ``a.b`` is the field ``b`` inside ``a`` (lists are not searched), and a field whose own name is ``a.b``. Where a
    passage has several fields that a name with dots may mean, a condition holds if it holds for one of them.

    Raises
    ------
    InvalidInputError
        For an unknown operator or a value of a wrong type, naming it.
    """
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"filter is {where!r}; expected a mapping such as {{'year': {{'$gte': 2023}}}}")
    return _join([_clause(key, value) for key, value in where.items()], "AND", "1")


def _clause(key: object, value: object) -> Sql:
    if not isinstance(key, str) or not key:
        raise InvalidInputError(f"filter key is {key!r}; expected a field name or an operator")
    if key in ("$and", "$or"):
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
            raise InvalidInputError(f"{key} has the value {value!r}; expected a list of at least one filter")
        return _join([compile_filter(part) for part in value], key[1:].upper(), "1")
    if key == "$not":
        return _negated(compile_filter(value))
    if key.startswith("$"):
        raise InvalidInputError(f"unknown filter operator {key!r}; expected $and, $or, $not or a field name")
    if isinstance(value, Mapping):
        return _field(key, value)
    return _equal(key, value)


def _field(field: str, conditions: Mapping[str, object]) -> Sql:
    if not conditions:
        raise InvalidInputError(f"the filter on {field!r} is empty; expected operators such as {{'$eq': 1}}")
    return _join([_condition(field, operator, value) for operator, value in conditions.items()], "AND", "1")


def _condition(field: str, operator: str, value: object) -> Sql:
    if operator not in _OPERATORS:
        raise InvalidInputError(
            f"unknown filter operator {operator!r} on {field!r}; expected one of {', '.join(_OPERATORS)}"
        )
    if operator in _COMPARISONS:
        return _compared(field, operator, value)
    handlers: dict[str, Callable[[], Sql]] = {
        "$eq": lambda: _equal(field, value),
        "$ne": lambda: _negated(_equal(field, value)),
        "$in": lambda: _member(field, operator, value),
        "$nin": lambda: _negated(_member(field, operator, value)),
        "$contains": lambda: _contains(field, value),
        "$exists": lambda: _exists(field, value),
        "$not": lambda: _negated(_not_operand(field, value)),
    }
    return handlers[operator]()


def _not_operand(field: str, value: object) -> Sql:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"$not on {field!r} has the value {value!r}; expected operators")
    return _field(field, value)


def _equal(field: str, value: object) -> Sql:
    if value is None:
        return _join([_exists(field, False), _some(field, "item.type = 'null'", [])], "OR", "0")
    if isinstance(value, list | tuple) and not value:
        empty = "COALESCE(json_type(metadata, ?) = 'array' AND json_array_length(metadata, ?) = 0, 0)"
        return _join([(empty, [path, path]) for path in _paths(field)], "OR", "0")
    if isinstance(value, bool):
        return _some(field, "item.type = ?", ["true" if value else "false"])
    types, value = _typed(field, value)
    return _some(field, f"item.type IN {types} AND item.value = ?", [value])


def _compared(field: str, operator: str, value: object) -> Sql:
    if isinstance(value, bool) or value is None:
        raise InvalidInputError(f"{operator} on {field!r} has the value {value!r}; expected a number or a string")
    types, value = _typed(field, value)
    return _some(field, f"item.type IN {types} AND item.value {_COMPARISONS[operator]} ?", [value])


def _member(field: str, operator: str, values: object) -> Sql:
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence | set | frozenset):
        raise InvalidInputError(f"{operator} on {field!r} has the value {values!r}; expected a list")
    special = [value for value in values if value is None or isinstance(value, bool)]
    plain = [_typed(field, value) for value in values if value is not None and not isinstance(value, bool)]
    clauses = [_equal(field, value) for value in special]
    for types in sorted({types for types, _ in plain}):
        alike = [value for kind, value in plain if kind == types]
        # One parameter whatever the length: SQLite limits their number.
        condition = f"item.type IN {types} AND item.value IN (SELECT value FROM json_each(?))"
        clauses.append(_some(field, condition, [json.dumps(alike)]))
    return _join(clauses, "OR", "0")


def _contains(field: str, value: object) -> Sql:
    if value is None or isinstance(value, list | tuple):
        raise InvalidInputError(
            f"$contains on {field!r} has the value {value!r}; expected a string, a number or a bool"
        )
    clauses = [_equal(field, value)]
    if isinstance(value, str):
        has_part = "COALESCE(json_type(metadata, ?) = 'text' AND instr(json_extract(metadata, ?), ?) > 0, 0)"
        clauses += [(has_part, [path, path, str.__str__(value)]) for path in _paths(field)]
    return _join(clauses, "OR", "0")


def _exists(field: str, value: object) -> Sql:
    if not isinstance(value, bool):
        raise InvalidInputError(f"$exists on {field!r} has the value {value!r}; expected True or False")
    exists = _join([("json_type(metadata, ?) IS NOT NULL", [path]) for path in _paths(field)], "OR", "0")
    return exists if value else _negated(exists)


def _some(field: str, condition: str, parameters: Sequence[str | int | float]) -> Sql:
    # json_each returns a scalar as one row and a list as one row per item; an object's values, which it returns too,
    # are not meant.
    # COALESCE, since an absent field makes the guard NULL and NOT NULL is not true.
    sql = (
        "COALESCE(json_type(metadata, ?) <> 'object' AND "
        f"EXISTS (SELECT 1 FROM json_each(metadata, ?) AS item WHERE {condition}), 0)"
    )
    return _join([(sql, [path, path, *parameters]) for path in _paths(field)], "OR", "0")


def _typed(field: str, value: object) -> tuple[str, str | int | float]:
    """Return SQLite's types of values comparable with `value`, and `value` itself as metadata stores it."""
    try:
        value = plain_scalar(value)
    except TypeError as error:
        raise InvalidInputError(
            f"the filter on {field!r} compares with {shown(value)}; {_EXPECTED}: convert it as in metadata, "
            f"for instance by {remedy(value)}"
        ) from error
    if isinstance(value, str):
        _require_sql_text(value, f"the filter on {field!r} compares with")
        return "('text')", value
    if (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value)):
        return "('integer', 'real')", value
    raise InvalidInputError(f"the filter on {field!r} compares with {shown(value)}; {_EXPECTED}")


def _paths(field: str) -> list[str]:
    """Return the JSON path of each field that `field` may mean: a dot stands between two keys, or is part of one."""
    _require_sql_text(field, "filter field")
    if '"' in field:
        raise InvalidInputError(f"filter field {field!r} holds a double quote; expected a plain field name")
    parts = field.split(".")
    dots = len(parts) - 1
    if dots > _MAX_MIXED_DOTS:
        return [_path(parts), _path([field])]
    return [_path(_keys(parts, dots_inside)) for dots_inside in range(2**dots)]


def _keys(parts: Sequence[str], dots_inside: int) -> list[str]:
    """Return the keys that `parts` are joined to, by a bit per dot that says whether it is part of a key."""
    keys = [parts[0]]
    for dot, part in enumerate(parts[1:]):
        if dots_inside >> dot & 1:
            keys[-1] += f".{part}"
        else:
            keys.append(part)
    return keys


def _path(keys: Sequence[str]) -> str:
    # Escaped as the stored JSON is: SQLite compares the two as they are written.
    return "$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in keys)


def _require_sql_text(text: str, what: str) -> None:
    # For SQLite a string of JSON ends at a NUL, so this one would match other strings.
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidInputError(f"{what} {text!r}; expected text without NUL characters and lone surrogates")


def _negated(clause: Sql) -> Sql:
    return f"(NOT {clause[0]})", clause[1]


def _join(clauses: Sequence[Sql], operator: str, empty: str) -> Sql:
    if len(clauses) < 2:
        return clauses[0] if clauses else (empty, [])
    # Halving keeps the expression flat: SQLite limits its depth, and a chain of a thousand is a thousand deep.
    middle = len(clauses) // 2
    left, right = _join(clauses[:middle], operator, empty), _join(clauses[middle:], operator, empty)
    return f"({left[0]} {operator} {right[0]})", [*left[1], *right[1]]
