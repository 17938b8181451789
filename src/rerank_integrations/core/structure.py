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
    require_no_structure(metadata, f"passage {passage_id!r}")
    return {**metadata, STRUCTURE_KEY: dict(structure)}


def require_no_structure(metadata: Metadata, what: str) -> None:
    """Raise `InvalidInputError` if metadata of the user's own has the reserved key, or a dotted name within it."""
    for key in metadata:
        if isinstance(key, str) and (key == STRUCTURE_KEY or key.startswith(f"{STRUCTURE_KEY}.")):
            raise InvalidInputError(f"metadata of {what} has the key {key!r}, which is reserved; expected another key")


def without_structure(metadata: Metadata) -> dict[str, Any]:
    """Return a copy of the user's own metadata."""
    return {key: value for key, value in metadata.items() if key != STRUCTURE_KEY}
