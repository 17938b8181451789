"""What a passage must be to be stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError

# SQLite's JSON functions give up at 1000 levels, and a filter reads every row.
_MAX_DEPTH = 100


def metadata_json(passage: Passage) -> str:
    """Return the metadata of `passage` as JSON text.

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
    try:
        if _deeper(passage.metadata, _MAX_DEPTH):
            raise InvalidInputError(f"{what} is nested deeper than {_MAX_DEPTH} levels")
        written = json.dumps(passage.metadata, ensure_ascii=False, allow_nan=False)
    except InvalidInputError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{what} is not JSON: {error}; expected strings, numbers, bools, None, and lists and dictionaries of them"
        ) from error
    _require_unicode(written, what)
    # Filters run in SQLite, for which a string ends at a NUL. A backslash of the text's own is written as two.
    if "\\u0000" in written.replace("\\\\", ""):
        raise InvalidInputError(f"{what} holds a NUL character; expected none")
    return written


def _deeper(value: Any, levels: int) -> bool:
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return levels == 0 or any(_deeper(child, levels - 1) for child in children)


def _require_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} is not valid Unicode: {error}") from error
