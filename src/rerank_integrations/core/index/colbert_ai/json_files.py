"""A reader of the JSON files of an index folder, whose errors name the file."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, TypeVar

from rerank_integrations.errors import IndexFormatError

_T = TypeVar("_T", dict[str, Any], list[Any])


def read_json(path: Path, kind: type[_T], max_bytes: int | None = None) -> _T:
    """Read a file that holds one JSON object (`kind` is dict) or array (list).

    Parameters
    ----------
    max_bytes
        The largest size allowed; ``None`` for a file that grows with the collection. Time and memory grow with the
        size and with nothing else.

    Raises
    ------
    IndexFormatError
        If the file is missing or no plain file, too large, not UTF-8, not JSON, or of the other kind, or if an object
        has a key twice.
    """
    wanted = "a JSON object" if kind is dict else "a JSON array"
    try:
        # Reading a device or a pipe may never end.
        if path.exists() and not path.is_file():
            raise IndexFormatError(f"{path} is no plain file; expected {wanted}")
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise IndexFormatError(f"{path} has {path.stat().st_size} bytes; expected at most {max_bytes}")
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
        raise IndexFormatError(f"{path} gives {key!r} as {brief(value)}; expected an integer of at least {least}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {brief(key)} stands twice")
        result[key] = value
    return result


def brief(value: object) -> str:
    """Return a shortened text of a value for a message, since a file may hold anything of any length."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2
