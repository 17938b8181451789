"""An index as callers give it: open, or by its path."""

from __future__ import annotations

import os

from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.errors import InvalidInputError


def as_index(index: str | os.PathLike[str] | ColBERTIndex) -> ColBERTIndex:
    """Return `index` itself, or the index at that path opened for reading.

    Raises
    ------
    InvalidInputError
        If it is neither.
    """
    if isinstance(index, ColBERTIndex):
        return index
    if isinstance(index, str | os.PathLike):
        return ColBERTIndex.open(index, read_only=True)
    raise InvalidInputError(f"index is of type {type(index).__name__}; expected a path or a ColBERTIndex")
