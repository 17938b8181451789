"""Argument checks that both models share."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_integrations.errors import InvalidInputError


def require_texts(texts: Sequence[str], name: str = "text") -> None:
    """Raise `InvalidInputError` unless `texts` is a sequence of strings (not one string) that UTF-8 can write."""
    if isinstance(texts, str):
        several = "queries" if name == "query" else f"{name}s"
        raise InvalidInputError(f"{several} is one string, {texts[:40]!r}; expected a list of strings")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"{name} number {place} is of type {type(text).__name__}; expected str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            # Tokenizers and SQLite take UTF-8 only, and say so less clearly.
            raise InvalidInputError(f"{name} number {place} is not valid Unicode: {error}") from error
