"""An index as callers give it: open, or by its path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.errors import InvalidInputError


def as_index(index: str | os.PathLike[str] | Mapping[str, Any] | ColBERTIndex) -> ColBERTIndex:
    """Return `index` itself, or the index at that path opened for reading.

    Parameters
    ----------
    index
        A mapping has a ``path`` and a ``model``: a name, a path, or arguments of `ColBERTModel`. An index that was made
        with a model in a folder does not open by its path alone.

    Raises
    ------
    InvalidInputError
        If it is none of these.
    """
    if isinstance(index, ColBERTIndex):
        return index
    if isinstance(index, str | os.PathLike):
        return ColBERTIndex.open(index, read_only=True)
    if isinstance(index, Mapping) and set(index) == {"path", "model"}:
        model = index["model"]
        encoder = ColBERTModel(**model) if isinstance(model, Mapping) else model
        return ColBERTIndex.open(index["path"], encoder, read_only=True)
    raise InvalidInputError(
        f"index is of type {type(index).__name__}; expected a path, a ColBERTIndex, or a mapping of path and model"
    )
