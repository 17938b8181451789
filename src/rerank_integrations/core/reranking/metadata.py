"""Scores and notes in a document's metadata, beside the user's own keys and never over them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from rerank_integrations.core.checks import is_number
from rerank_integrations.core.reranking.candidates import Ranked
from rerank_integrations.core.types import Hit, Metadata

_PREVIOUS = "previous_"
_NUMBERS = ("retrieval_score", "colbert_score", "bm25_score", "bm25_weight")
# Every reranking writes this key, so metadata that has it went through one.
_MARK = "retrieval_rank"

# Keys that a retriever writes into a document's metadata.
_RANK_KEYS = ("relevance_score", "relevance_rank")
_SEARCH_KEYS = ("search_type", "colbert_score", "bm25_score", "bm25_weight")
RETRIEVAL_KEYS = (*_RANK_KEYS, *_SEARCH_KEYS)

RERANKING_KEYS = (
    *_RANK_KEYS,
    "retrieval_score",
    _MARK,
    "score_scale",
    "vectors_from",
    "pool_factor",
    "window_start",
    "window_end",
    "truncated",
    "query_truncated",
    "rerank_stage",
    "rerank_scores",
    "rerank_stopped",
    *_SEARCH_KEYS,
)


class RankedMetadata(NamedTuple):
    """Metadata after a search or a reranking, and those of its keys that belong to the query, not to the document."""

    values: dict[str, Any]
    score_keys: frozenset[str]


def with_retrieval(hit: Hit, metadata: Metadata) -> RankedMetadata:
    """Return a copy of `metadata` with a hit's score, rank and note; an old value of a key moves to ``previous_``."""
    merged = dict(metadata)
    written = {"relevance_score": hit.score, "relevance_rank": hit.rank, **hit.note}
    for key, value in written.items():
        _make_room(merged, key)
        merged[key] = value
    return RankedMetadata(merged, frozenset(written))


def ranking_note(ranked: Ranked, rank: int, *, keep_retrieval_score: bool = True) -> dict[str, object]:
    """Return the keys that a reranking writes: the score, the rank, and the note."""
    note = {key: value for key, value in ranked.note.items() if keep_retrieval_score or key != "retrieval_score"}
    return {"relevance_score": ranked.score, "relevance_rank": rank, **note}


def with_ranking(
    metadata: Metadata,
    ranked: Ranked,
    rank: int,
    *,
    keep_retrieval_score: bool = True,
    score_keys: Collection[str] | None = None,
) -> RankedMetadata:
    """Return a copy of `metadata`, its lists and dictionaries copied too, with the `ranking_note`.

    The notes of the reranking or search before move to ``previous_<key>``, and what stood there of one still earlier is
    dropped. A key of the user's own that this note has moves to ``previous_<key>``, and further on if need be; so does
    one whose value could be ours, so that the next reranking does not take it for one of ours.

    Parameters
    ----------
    score_keys
        The keys that an earlier search or reranking wrote, if that is known; by default those of `score_keys_of`.
    """
    ours = score_keys_of(metadata) if score_keys is None else {key for key in score_keys if key in metadata}
    previous = {f"{_PREVIOUS}{key}": copied(metadata[key]) for key in RERANKING_KEYS if key in ours}
    note = {
        key: copied(value)
        for key, value in ranking_note(ranked, rank, keep_retrieval_score=keep_retrieval_score).items()
    }
    merged: dict[str, Any] = {key: copied(value) for key, value in metadata.items() if key not in ours}
    for key in RERANKING_KEYS:
        if key in note or _may_be_ours(key, merged.get(key)):
            _make_room(merged, key)
    for key in RERANKING_KEYS:
        earlier = f"{_PREVIOUS}{key}"
        if earlier in previous or (f"{_PREVIOUS}{_MARK}" in previous and _may_be_ours(key, merged.get(earlier))):
            _make_room(merged, earlier)
    return RankedMetadata({**merged, **note, **previous}, frozenset(note) | frozenset(previous))


def score_keys_of(metadata: Metadata) -> frozenset[str]:
    """Return the keys that rerankings wrote into `metadata`, as far as its values show.

    A reranking writes a score, two ranks and a scale. Where all of them stand with values that they can have, every
    key of `RERANKING_KEYS` with such a value is taken for the reranking's; and likewise of those with the
    prefix ``previous_``.
    """
    if not _has_ranking(metadata, ""):
        return frozenset()
    prefixes = ["", _PREVIOUS] if _has_ranking(metadata, _PREVIOUS) else [""]
    return frozenset(
        f"{prefix}{key}"
        for prefix in prefixes
        for key in RERANKING_KEYS
        if _may_be_ours(key, metadata.get(f"{prefix}{key}"))
    )


def _may_be_ours(key: str, value: object) -> bool:
    """Return whether a reranking may have written this value under this key."""
    if key == "relevance_score" or key in _NUMBERS:
        return is_number(value)
    if key == "search_type":
        return value in ("bm25", "hybrid")
    if key in ("truncated", "query_truncated"):
        return value is True
    if key == "rerank_scores":
        return isinstance(value, dict)
    if key.endswith(("_rank", "_start", "_end")):
        return isinstance(value, int)
    return isinstance(value, str)


def _has_ranking(metadata: Metadata, prefix: str) -> bool:
    value = {key: metadata.get(f"{prefix}{key}") for key in RERANKING_KEYS}
    ranks = (value["relevance_rank"], value[_MARK])
    return (
        is_number(value["relevance_score"])
        and all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks)
        # A cascade that stopped before its first stage has no scale.
        and (isinstance(value["score_scale"], str) or isinstance(value["rerank_stopped"], str))
    )


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


def copied(value: object) -> Any:
    """Return a copy of a dictionary or list, and any other value itself."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def _make_room(metadata: dict[str, Any], key: str) -> None:
    """Move the value of `key`, if there is one, to ``previous_<key>``, and what stands there further on."""
    if key in metadata:
        _make_room(metadata, f"{_PREVIOUS}{key}")
        metadata[f"{_PREVIOUS}{key}"] = metadata.pop(key)
