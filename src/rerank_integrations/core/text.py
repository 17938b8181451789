"""The text that is scored, made of a candidate's text and metadata by a template."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from rerank_integrations.errors import InvalidInputError


class TextTemplate:
    """A template such as ``"{title}: {page_content}"``; names alone, no attributes and no calls.

    A value of ``None`` is written as nothing.

    Raises
    ------
    InvalidInputError
        If it is no string, cannot be read, names nothing, or has more than names in its braces.
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise InvalidInputError(f"the template is of type {type(template).__name__}; expected str")
        try:
            self._parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise InvalidInputError(f"the template {template!r} cannot be read: {error}") from error
        names = [name for _, name, _, _ in self._parts if name is not None]
        if not names or any(
            not name.isidentifier() or form or how for _, name, form, how in self._parts if name is not None
        ):
            raise InvalidInputError(f"the template is {template!r}; expected names in braces, as in '{{page_content}}'")

    def fill(self, values: Mapping[str, Any], which: str) -> str:
        """Return the text; `which` names the candidate in an error.

        Raises
        ------
        InvalidInputError
            If a name has no value.
        """
        return "".join(
            before + ("" if name is None else _value(values, name, which)) for before, name, _, _ in self._parts
        )


def _value(values: Mapping[str, Any], name: str, which: str) -> str:
    if name not in values:
        known = ", ".join(sorted(map(str, values)))
        raise InvalidInputError(f"{which} has no {name!r} for the template; it has {known}")
    return "" if values[name] is None else str(values[name])
