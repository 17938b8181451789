"""Checks of ids, texts and metadata before they are stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from rerank_integrations.core.types import Passage, Where, to_passage
from rerank_integrations.errors import InvalidInputError

Scalar: TypeAlias = str | int | float | bool | None
Json: TypeAlias = "Scalar | list[Json] | dict[str, Json]"


def id_list(ids: Iterable[str]) -> list[str]:
    """Return the different `ids` in the order of their first mention.

    Raises
    ------
    InvalidInputError
        If `ids` is a single string, no iterable, or has an item that is not a string.
    """
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidInputError(f"ids is {ids!r}; expected a list of strings")
    wanted = list(ids)
    for item in wanted:
        if not isinstance(item, str):
            raise InvalidInputError(f"id is {item!r}; expected a string")
    return list(dict.fromkeys(wanted))


def ids_alone(method: str, ids: Iterable[str], where: object) -> list[str]:
    """Return `id_list` of `ids`; raise `InvalidInputError` if `method` was called with a filter too."""
    if where is not None:
        raise InvalidInputError(f"{method} has both ids and where={where!r}; expected one of them")
    return id_list(ids)


def filter_alone(method: str, where: Where | None) -> Where:
    """Return the filter of a call of `method` without ids; raise `InvalidInputError` if there is none."""
    if where is None:
        raise InvalidInputError(
            f"{method} has neither ids nor where; expected one of them (where={{}} is every passage)"
        )
    return where


# SQLite's JSON functions give up at 1000 levels, and a filter reads every row.
_MAX_DEPTH = 100
# A larger whole number would be infinite for a filter, and may have more digits than Python reads.
_MAX_NUMBER = sys.float_info.max
# Characters of a value that an error quotes.
_MAX_SHOWN = 60


def metadata_json(passage: Passage) -> str:
    """Return the metadata of `passage` as JSON text, from which the same metadata is read again.

    Tuples come back as lists, mappings as dictionaries, and values of classes derived from `str`, `int` and `float` as
    the plain value that they equal.

    Raises
    ------
    InvalidInputError
        If its id, text or metadata cannot be stored.
    """
    _require_unicode(passage.id, f"passage id {passage.id!r}")
    _require_unicode(passage.text, f"text of passage {passage.id!r}")
    if "\0" in passage.id:
        raise InvalidInputError(f"passage id {passage.id!r} holds a NUL character; expected none")
    what = f"metadata of passage {passage.id!r}"
    written = json.dumps(_plain(passage.metadata, what, ()), ensure_ascii=False, allow_nan=False)
    _require_unicode(written, what)
    # Filters run in SQLite, for which a string ends at a NUL. A backslash of the text's own is written as two.
    if "\\u0000" in written.replace("\\\\", ""):
        raise InvalidInputError(f"{what} holds a NUL character; expected none")
    return written


def require_storable(passage: Passage) -> None:
    """Raise `InvalidInputError` if an index would refuse to store `passage`."""
    metadata_json(to_passage(passage))


def plain_scalar(value: object) -> Scalar:
    """Return `value` as metadata stores it, and filters compare it: as a plain string, number, bool or ``None``.

    Raises
    ------
    TypeError
        If it is none of these. A NumPy number is none, unless it is a Python `float` too.
    """
    if value is None or isinstance(value, bool):
        return value
    # The method of the plain class is called, since a derived class may override it.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError


def shown(value: object) -> str:
    """Return `value` as an error quotes it, with its type, shortened."""
    kind = f"of type {type(value).__name__}"
    try:
        text = repr(value)
    except Exception:
        # Whole numbers of too many digits have no `repr`, nor have broken objects.
        return f"a value {kind}"
    return f"{text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'} ({kind})"


def remedy(value: object) -> str:
    """Return the call that turns `value` into something that can be stored and compared."""
    remedies = {
        "isoformat": "isoformat()", "item": "item()", "tolist": "tolist()", "hex": "hex", "value": "value",
        "isdisjoint": "sorted()",
    }  # fmt: skip
    return next((text for name, text in remedies.items() if hasattr(value, name)), "str()")


def _plain(value: object, what: str, at: tuple[str | int, ...]) -> Json:
    if len(at) == _MAX_DEPTH:
        raise InvalidInputError(f"{what} is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key, what, at): _plain(item, what, (*at, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what, (*at, number)) for number, item in enumerate(value)]
    try:
        plain = plain_scalar(value)
    except TypeError as error:
        raise InvalidInputError(
            f"{what} has {shown(value)}{_place(at)}; expected strings, numbers, bools, None, lists and dictionaries of "
            f"them: convert it, for instance by {remedy(value)}"
        ) from error
    if isinstance(plain, int | float) and not abs(plain) <= _MAX_NUMBER:
        raise InvalidInputError(f"{what} has {shown(value)}{_place(at)}; expected a finite number, or None")
    return plain


def _key(key: object, what: str, at: tuple[str | int, ...]) -> str:
    # JSON would turn it into a string, and 1 and "1" into the same key.
    if not isinstance(key, str):
        raise InvalidInputError(f"{what} has the key {shown(key)}{_place(at)}; expected a string")
    return str.__str__(key)


def _place(at: tuple[str | int, ...]) -> str:
    return f" at {'.'.join(map(str, at))!r}" if at else ""


def _require_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} is not valid Unicode: {error}") from error
