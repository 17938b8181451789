"""Reserved metadata key for the fields of a framework's object that a passage has no field for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rerank_integrations.core.types import Metadata
from rerank_integrations.errors import InvalidInputError

STRUCTURE_KEY = "_rerank_integrations_node"


def with_structure(metadata: Metadata, structure: Mapping[str, object], passage_id: str) -> dict[str, Any]:
    """Return a copy of `metadata` with `structure` under the reserved key.

    Raises
    ------
    InvalidInputError
        If the metadata has that key already.
    """
    if STRUCTURE_KEY in metadata:
        raise InvalidInputError(
            f"metadata of passage {passage_id!r} has the key {STRUCTURE_KEY!r}, which is reserved; expected another key"
        )
    return {**metadata, STRUCTURE_KEY: dict(structure)}


def without_structure(metadata: Metadata) -> dict[str, Any]:
    """Return a copy of the user's own metadata."""
    return {key: value for key, value in metadata.items() if key != STRUCTURE_KEY}
