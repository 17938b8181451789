"""Scores and notes in metadata never overwrite the user's keys, and can be read back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import Hit, Ranked
from rerank_integrations.core.reranking.metadata import (
    RERANKING_KEYS,
    is_reranking_key,
    retrieval_score,
    score_keys_of,
    with_ranking,
    with_retrieval,
    without_ranking,
)

KEYS = st.sampled_from(["title", "year", *RERANKING_KEYS[:3], "previous_relevance_score", "truncated", "previous_x"])
SHORT = {"retrieval_rank": 1, "score_scale": "own"}
NOTE = {"retrieval_rank": 2, "retrieval_score": 0.5, "score_scale": "logit", "truncated": True}


def ranked(metadata: Any, score: float, note: Any = NOTE, rank: int = 1, **options: Any) -> dict[str, Any]:
    return with_ranking(metadata, Ranked(0, score, note), rank, **options).values


def test_a_ranking_is_written_beside_the_rest() -> None:
    metadata = {"title": "x"}
    values, score_keys = with_ranking(metadata, Ranked(0, 1.5, NOTE), 1)
    assert values == {"title": "x", "relevance_score": 1.5, "relevance_rank": 1, **NOTE}
    assert score_keys == score_keys_of(values) == set(values) - {"title"}
    assert metadata == {"title": "x"}
    kept = ranked(metadata, 1.5, keep_retrieval_score=False)
    assert "retrieval_score" not in kept
    assert kept["retrieval_rank"] == 2


def test_an_earlier_ranking_moves_as_a_whole_and_no_further() -> None:
    once = ranked({}, 1.0, {**NOTE, "vectors_from": "stored"})
    twice = ranked(once, 2.0, {"retrieval_rank": 1, "score_scale": "maxsim_sum"}, rank=3)
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
    assert score_keys_of(twice) == set(twice)
    thrice = ranked(twice, 3.0, {"retrieval_rank": 5, "score_scale": "own"})
    assert thrice == {
        "relevance_score": 3.0,
        "relevance_rank": 1,
        "retrieval_rank": 5,
        "score_scale": "own",
        "previous_relevance_score": 2.0,
        "previous_relevance_rank": 3,
        "previous_retrieval_rank": 1,
        "previous_score_scale": "maxsim_sum",
    }


def test_a_search_before_is_the_earlier_value_once_it_is_known() -> None:
    hit = with_retrieval(Hit("a", 0.5, 7, "text"), {"title": "x", "relevance_rank": "mine"})
    assert hit.values == {
        "title": "x", "relevance_score": 0.5, "relevance_rank": 7, "previous_relevance_rank": "mine"
    }  # fmt: skip
    assert hit.score_keys == {"relevance_score", "relevance_rank"}
    once = with_ranking(hit.values, Ranked(0, 1.0, NOTE), 1, score_keys=hit.score_keys)
    assert (once.values["previous_relevance_score"], once.values["previous_relevance_rank"]) == (0.5, 7)
    assert once.values["previous_previous_relevance_rank"] == "mine"
    twice = with_ranking(once.values, Ranked(0, 2.0, NOTE), 1, score_keys=once.score_keys)
    assert twice.values["previous_relevance_score"] == 1.0
    assert twice.values["previous_previous_relevance_rank"] == "mine"
    assert set(twice.values) - twice.score_keys == {"title", "previous_previous_relevance_rank"}


@given(metadata=st.dictionaries(KEYS | st.integers(), st.integers()), notes=st.lists(st.sampled_from([SHORT, NOTE])))
def test_nothing_of_the_user_s_is_lost_and_ours_does_not_pile_up(
    metadata: dict[Any, Any], notes: list[dict[str, Any]]
) -> None:
    before = copy.deepcopy(metadata)
    merged, score_keys = dict(metadata), frozenset[str]()
    for rank, note in enumerate(notes, start=1):
        merged, score_keys = with_ranking(merged, Ranked(0, -1.0, note), rank)
        assert (merged["relevance_score"], merged["relevance_rank"]) == (-1.0, rank)
    assert metadata == before
    values = list(merged.values())
    for value in metadata.values():
        assert value in values
        values.remove(value)
    # Under its own key, unless that is a name of ours.
    assert all(merged[key] == value for key, value in metadata.items() if not is_reranking_key(key))
    assert len(merged) - len(score_keys) == len(metadata)
    assert all(key.removeprefix("previous_") in RERANKING_KEYS for key in score_keys)


@given(metadata=st.dictionaries(st.sampled_from(["title", "year", 7]), st.integers()), count=st.integers(0, 3))
def test_without_rankings_it_is_what_it_was(metadata: dict[Any, Any], count: int) -> None:
    merged = dict(metadata)
    for rank in range(count):
        merged = ranked(merged, 1.0, rank=rank + 1)
    assert without_ranking(merged) == metadata


@pytest.mark.parametrize(
    "changed",
    [{"relevance_score": "1"}, {"relevance_rank": 0}, {"retrieval_rank": True}, {"score_scale": None}],
    ids=str,
)
def test_names_without_values_of_a_ranking_are_the_user_s(changed: dict[str, Any]) -> None:
    mine = {"relevance_score": 1.0, "relevance_rank": 1, "retrieval_rank": 1, "score_scale": "own", **changed}
    assert score_keys_of(mine) == frozenset()
    again = ranked(ranked(ranked(mine, 2.0), 3.0), 4.0)
    assert {f"previous_previous_{key}": value for key, value in mine.items()}.items() <= again.items()


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


@pytest.mark.parametrize(
    ("given_", "expected"),
    [(1, 1.0), (0.5, 0.5), (np.float32(0.5), 0.5), (True, None), ("0.5", None), (None, None), (float("nan"), None)],
)
def test_the_score_of_a_retriever(given_: Any, expected: float | None) -> None:
    found = retrieval_score({"relevance_score": given_})
    assert found == expected
    assert expected is None or type(found) is float
    assert retrieval_score({}) is None
