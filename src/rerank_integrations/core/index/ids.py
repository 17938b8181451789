"""Lists of passage ids, as callers give them and as SQL takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rerank_integrations.errors import InvalidInputError


def id_list(ids: Iterable[str]) -> list[str]:
    """Return the different `ids` in the order of their first mention.

    Raises
    ------
    InvalidInputError
        If `ids` is one string, no iterable, or holds something that is not a string.
    """
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidInputError(f"ids is {ids!r}; expected a list of strings")
    wanted = list(ids)
    for item in wanted:
        if not isinstance(item, str):
            raise InvalidInputError(f"id is {item!r}; expected a string")
    return list(dict.fromkeys(wanted))


def sql_ids(ids: Sequence[str]) -> str:
    """Return `ids` as one SQL parameter, for ``IN (SELECT value FROM json_each(?))``."""
    # SQLite ends a JSON string at a NUL, so "a\0b" would mean "a"; no stored id holds one.
    return json.dumps([item for item in ids if "\0" not in item])
