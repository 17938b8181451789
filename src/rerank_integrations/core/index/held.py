"""Passages of an index scored by query vectors that are at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.core.index.effort import search_device
from rerank_integrations.core.index.schema import read_meta
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.types import Hit
from rerank_integrations.errors import IndexFormatError


def held_hits(index: ColBERTIndex, query: Floats, ids: Sequence[str]) -> dict[str, Hit]:
    """Return, by id, the hits of those `ids` that `index` holds, scored from its stored vectors.

    Parameters
    ----------
    query
        The query's token vectors by the index's model; float32, *Shape:* (tokens, dim).

    Raises
    ------
    IndexClosedError
        If the index was closed.
    ModelMismatchError
        If the index now holds vectors of another model.
    """
    index._require_open()
    if not ids:
        return {}
    model = index.model
    hits = index._reader.rerank(query, list(dict.fromkeys(ids)), None, model.fingerprint, search_device(model))
    return {hit.id: hit for hit in hits}


def recorded_document_length(index: ColBERTIndex) -> int | None:
    """Return the ``document_length`` of the model that made the index; ``None`` for the checkpoint's own."""
    index._require_open()
    with index._catalog.read() as connection:
        recorded = read_meta(connection, index.path)["model"]
    try:
        length = json.loads(recorded).get("document_length")
    except (ValueError, AttributeError, RecursionError) as error:
        raise IndexFormatError(f"{index.path} is damaged: the model that it records is {recorded[:100]!r}") from error
    return length if isinstance(length, int) else None
