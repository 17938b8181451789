"""Scores and notes in metadata never overwrite the user's keys, and can be read back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import Ranked
from rerank_integrations.core.reranking.metadata import (
    RERANKING_KEYS,
    is_reranking_key,
    retrieval_score,
    with_fields,
    with_ranking,
    without_ranking,
)

KEYS = st.sampled_from(["title", "year", *RERANKING_KEYS[:3], "previous_relevance_score", "truncated", "previous_x"])
NOTE = {"retrieval_rank": 2, "retrieval_score": 0.5, "score_scale": "logit", "truncated": True}


def test_a_ranking_is_written_beside_the_rest() -> None:
    metadata = {"title": "x"}
    assert with_ranking(metadata, Ranked(0, 1.5, NOTE), 1) == {
        "title": "x", "relevance_score": 1.5, "relevance_rank": 1, **NOTE
    }  # fmt: skip
    assert metadata == {"title": "x"}
    kept = with_ranking(metadata, Ranked(0, 1.5, NOTE), 1, keep_retrieval_score=False)
    assert "retrieval_score" not in kept
    assert kept["retrieval_rank"] == 2


def test_an_earlier_ranking_moves_as_a_whole() -> None:
    once = with_ranking({}, Ranked(0, 1.0, {**NOTE, "vectors_from": "stored"}), 1)
    twice = with_ranking(once, Ranked(0, 2.0, {"retrieval_rank": 1, "score_scale": "maxsim_sum"}), 3)
    assert twice == {
        "relevance_score": 2.0,
        "relevance_rank": 3,
        "retrieval_rank": 1,
        "score_scale": "maxsim_sum",
        "previous_relevance_score": 1.0,
        "previous_relevance_rank": 1,
        "previous_retrieval_rank": 2,
        "previous_retrieval_score": 0.5,
        "previous_score_scale": "logit",
        "previous_truncated": True,
        "previous_vectors_from": "stored",
    }
    thrice = with_ranking(twice, Ranked(0, 3.0, {"retrieval_rank": 5}), 1)
    assert thrice["previous_previous_relevance_score"] == 1.0
    assert thrice["previous_relevance_score"] == 2.0
    assert "score_scale" not in thrice


@given(metadata=st.dictionaries(KEYS | st.integers(), st.integers()), rankings=st.lists(st.sampled_from([{}, NOTE])))
def test_nothing_of_the_user_s_is_lost(metadata: dict[Any, Any], rankings: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(metadata)
    merged = dict(metadata)
    for rank, note in enumerate(rankings, start=1):
        merged = with_ranking(merged, Ranked(0, -1.0, {"retrieval_rank": rank, **note}), rank)
        assert (merged["relevance_score"], merged["relevance_rank"]) == (-1.0, rank)
    assert metadata == before
    values = list(merged.values())
    for value in metadata.values():
        assert value in values
        values.remove(value)
    # Under its own key, unless a ranking writes that.
    assert all(merged[key] == value for key, value in metadata.items() if not is_reranking_key(key))
    assert all(key in metadata or is_reranking_key(key) for key in merged)


@given(metadata=st.dictionaries(st.sampled_from(["title", "year", 7]), st.integers()), count=st.integers(0, 3))
def test_without_rankings_it_is_what_it_was(metadata: dict[Any, Any], count: int) -> None:
    merged = dict(metadata)
    for rank in range(count):
        merged = with_ranking(merged, Ranked(0, 1.0, NOTE), rank + 1)
    assert without_ranking(merged) == metadata


def test_keys_that_look_like_ours_stay_where_nothing_was_ranked() -> None:
    mine = {"truncated": "no", "relevance_score": 0.3, "previous_year": 7}
    assert without_ranking(mine) == mine
    assert without_ranking(mine) is not mine


@pytest.mark.parametrize("key", [*RERANKING_KEYS, "previous_truncated", "previous_previous_relevance_score"])
def test_our_keys(key: str) -> None:
    assert is_reranking_key(key)


@pytest.mark.parametrize("key", ["title", "", "previous_", "previous_title", "relevance", "xprevious_truncated", 7])
def test_keys_of_the_user_s(key: Any) -> None:
    assert not is_reranking_key(key)


def test_fields_move_what_stood_there() -> None:
    metadata = {"a": 1, "previous_a": 0}
    assert with_fields(metadata, a=2, b=3) == {"a": 2, "previous_a": 1, "previous_previous_a": 0, "b": 3}
    assert metadata == {"a": 1, "previous_a": 0}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [(1, 1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (True, None), ("0.5", None), (None, None), (float("nan"), None)],
)
def test_the_score_of_a_retriever(given_: Any, expected: float | None) -> None:
    found = retrieval_score({"relevance_score": given_})
    assert found == expected
    assert expected is None or type(found) is float
    assert retrieval_score({}) is None
