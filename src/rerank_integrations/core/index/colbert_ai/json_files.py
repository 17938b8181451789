"""JSON files of an index folder, read with the errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from rerank_integrations.errors import IndexFormatError

_T = TypeVar("_T", dict[str, Any], list[Any])


def read_json(path: Path, kind: type[_T]) -> _T:
    """Read a file that holds one JSON object (`kind` is dict) or array (list).

    Raises
    ------
    IndexFormatError
        If it is missing, not UTF-8, not JSON, of the other kind, or an object says a key twice.
    """
    wanted = "a JSON object" if kind is dict else "a JSON array"
    try:
        value = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_object)
    except FileNotFoundError as error:
        raise IndexFormatError(f"{path} is missing; expected {wanted}") from error
    except OSError as error:
        raise IndexFormatError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        # Bytes that are not UTF-8 are a ValueError too.
        raise IndexFormatError(f"{path} is damaged: {error}; expected {wanted} in UTF-8") from error
    if not isinstance(value, kind):
        raise IndexFormatError(f"{path} holds a JSON {type(value).__name__}; expected {wanted}")
    return value


def count(values: dict[str, Any], key: str, path: Path, least: int = 0) -> int:
    """Return the integer at `key`.

    Raises
    ------
    IndexFormatError
        If it is absent, not an integer, or smaller than `least`.
    """
    if key not in values:
        raise IndexFormatError(f"{path} lacks {key!r}; expected an integer of at least {least}")
    value = values[key]
    if type(value) is not int or value < least:
        raise IndexFormatError(f"{path} gives {key!r} as {value!r}; expected an integer of at least {least}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found
