"""Scores and notes in a document's metadata, beside the user's own keys and never over them."""

from __future__ import annotations

from typing import Any

from rerank_integrations.core.checks import is_number
from rerank_integrations.core.reranking.candidates import Ranked
from rerank_integrations.core.types import Metadata

_PREVIOUS = "previous_"
# Every reranking writes this key, so metadata that has it went through one.
_MARK = "retrieval_rank"

RERANKING_KEYS = (
    "relevance_score",
    "relevance_rank",
    "retrieval_score",
    _MARK,
    "score_scale",
    "vectors_from",
    "window_start",
    "window_end",
    "truncated",
    "query_truncated",
    "rerank_stage",
    "rerank_scores",
    "rerank_stopped",
)


def with_fields(metadata: Metadata, **fields: object) -> dict[str, Any]:
    """Return a copy of `metadata` with `fields`; an old value of such a key moves to ``previous_<key>``.

    So a second reranker preserves the score of the first, and a key of the user is never lost.
    """
    merged = dict(metadata)
    for key, value in fields.items():
        _put(merged, key, value)
    return merged


def ranking_note(ranked: Ranked, rank: int, *, keep_retrieval_score: bool = True) -> dict[str, object]:
    """Return the keys that a reranking writes: the score, the rank, and the note."""
    note = {key: value for key, value in ranked.note.items() if keep_retrieval_score or key != "retrieval_score"}
    return {"relevance_score": ranked.score, "relevance_rank": rank, **note}


def with_ranking(metadata: Metadata, ranked: Ranked, rank: int, *, keep_retrieval_score: bool = True) -> dict[str, Any]:
    """Return a copy of `metadata`, its lists and dictionaries copied too, with the `ranking_note`.

    The notes of an earlier reranking move to ``previous_<key>``, those too that this one does not write.
    """
    merged: dict[str, Any] = {key: _own(value) for key, value in metadata.items()}
    if _MARK in merged:
        for key in RERANKING_KEYS:
            if key in merged:
                _put(merged, f"{_PREVIOUS}{key}", merged.pop(key))
    for key, value in ranking_note(ranked, rank, keep_retrieval_score=keep_retrieval_score).items():
        _put(merged, key, _own(value))
    return merged


def without_ranking(metadata: Metadata) -> dict[str, Any]:
    """Return a copy of `metadata` without the keys of rerankings, because no model should read scores."""
    if _MARK not in metadata:
        return dict(metadata)
    return {key: value for key, value in metadata.items() if not is_reranking_key(key)}


def is_reranking_key(key: str) -> bool:
    """Return whether a reranking writes this key, or moves its old values there."""
    # A user's key may be something else than a string.
    while isinstance(key, str) and key.startswith(_PREVIOUS):
        key = key.removeprefix(_PREVIOUS)
    return key in RERANKING_KEYS


def retrieval_score(metadata: Metadata) -> float | None:
    """Return the score that a retriever or reranker of this package left in `metadata`, if there is one."""
    score = metadata.get("relevance_score")
    return float(score) if score is not None and is_number(score) else None


def _put(metadata: dict[str, Any], key: str, value: object) -> None:
    if key in metadata:
        _put(metadata, f"{_PREVIOUS}{key}", metadata[key])
    metadata[key] = value


def _own(value: object) -> object:
    """Return a copy of a dictionary or list, and any other value itself."""
    if type(value) is dict:
        return {key: _own(item) for key, item in value.items()}
    return [_own(item) for item in value] if type(value) is list else value
