"""Scores beside a user's metadata, never over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_fields(metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a copy of `metadata` with `fields`; what stood under such a key moves to ``previous_<key>``.

    So a second reranker keeps the score of the first, and a key of the user's own is never lost.
    """
    merged = dict(metadata)
    for key, value in fields.items():
        _put(merged, key, value)
    return merged


def _put(metadata: dict[str, Any], key: str, value: Any) -> None:
    if key in metadata:
        _put(metadata, f"previous_{key}", metadata[key])
    metadata[key] = value
