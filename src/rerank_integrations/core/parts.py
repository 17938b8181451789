"""Which model and which index a ColBERT reranker works with."""

from __future__ import annotations

import os
from typing import Any

from rerank_integrations.core.index import ColBERTIndex, as_index
from rerank_integrations.core.specs import ColBERTLike, IndexLike, load_colbert
from rerank_integrations.errors import InvalidInputError


def reranking_parts(model: ColBERTLike | None, index: IndexLike | None) -> tuple[Any, ColBERTIndex | None]:
    """Return the model and the open index that a ColBERT reranker works with; loads no weights.

    Without `model`, the index's own. An index given as a path is opened read-only, with `model` if given.

    Raises
    ------
    InvalidInputError
        If both are ``None``, or one is of a wrong kind.
    ModelMismatchError
        If the index at a path was built with another model.
    """
    if index is None:
        if model is None:
            raise InvalidInputError("model and index are both None; expected a model, an index, or both")
        return load_colbert(model), None
    if model is None:
        opened = as_index(index)
        return opened.model, opened
    loaded = load_colbert(model)
    if isinstance(index, str | os.PathLike):
        return loaded, ColBERTIndex.open(index, loaded, read_only=True)
    return loaded, as_index(index)
