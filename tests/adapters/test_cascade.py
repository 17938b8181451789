"""CascadeRerank in both frameworks: the core's cascade, and its notes when it is stopped."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of, ids, long_passages, noted_of_hits

from rerank_integrations import (
    Cascade,
    ColBERTIndex,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    CrossEncoderScorer,
    InvalidInputError,
    Passage,
    Reranker,
    rerank,
)

QUERY = QUERIES[0]
PATIENCE = 30


class Lengths:
    """Scores a text by its length."""

    name = "lengths"

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def score(self, query: str, texts: list[str]) -> list[float]:
        raise self.error


class Waiting:
    """Does not answer before it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def score(self, query: str, texts: list[str]) -> list[float]:
        assert self.may.wait(PATIENCE)
        return [0.0 for _ in texts]


@pytest.fixture
def cascade(harness: Any, index: ColBERTIndex, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> Any:
    return harness.cascade_rerank(
        stages=[
            harness.colbert_rerank(model=colbert, index=index, top_n=8),
            harness.cross_encoder_rerank(model=cross_encoder, top_n=5),
        ]
    )


@pytest.mark.parametrize("query", QUERIES[:3])
@pytest.mark.parametrize("top_n", [None, 2, 0])
async def test_is_the_cores_cascade(
    harness: Any,
    cascade: Any,
    index: ColBERTIndex,
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
    passages: list[Passage],
    query: str,
    top_n: int | None,
) -> None:
    chosen = candidates_of(passages)
    core = Cascade(
        [
            ("ColBERTRerank", Reranker(ColBERTScorer(colbert, index), top_n=8)),
            ("CrossEncoderRerank", Reranker(CrossEncoderScorer(cross_encoder), top_n=5)),
        ],
        top_n=top_n,
    )
    expected = noted_of_hits(rerank(query, chosen, core))
    cascade.top_n = top_n
    assert harness.noted(cascade, harness.candidates(chosen), query) == expected
    assert len(expected) == (5 if top_n is None else top_n)
    assert ids(await harness.arerank(cascade, harness.candidates(chosen), query)) == [row.id for row in expected]
    for row in expected:
        assert set(row.note["rerank_scores"]) == {"ColBERTRerank", "CrossEncoderRerank"}
        assert row.note["rerank_stage"] == "CrossEncoderRerank"
        # The place before the first stage, among the candidates.
        assert chosen[row.note["retrieval_rank"] - 1].id == row.id


def test_each_stage_reads_its_own_text_and_its_own_windows(
    harness: Any, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    chosen = long_passages(passages, 3)
    lengths = Lengths()
    stages = [
        harness.colbert_rerank(model=colbert, top_n=None, window=24),
        harness.cross_encoder_rerank(model=lengths, top_n=None, **harness.text_with_metadata),
    ]
    got = harness.noted(harness.cascade_rerank(stages=stages), harness.candidates(chosen), QUERY)
    by_colbert = {hit.id: hit.score for hit in rerank(QUERY, chosen, colbert, window=24)}
    with_metadata = {
        row.id: float(len(f"year: {row.metadata['year']}\ntags: {row.metadata['tags']}\n\n{row.text}"))
        for row in chosen
    }
    assert {row.id: row.note["rerank_scores"] for row in got} == {
        name: {"ColBERTRerank": by_colbert[name], "CrossEncoderRerank": with_metadata[name]} for name in by_colbert
    }
    # Notes are of the stage that gave the score.
    assert all("window_start" not in row.note and row.note["score_scale"] == "own" for row in got)


def test_equal_stages_have_names_of_their_own(harness: Any) -> None:
    stages = [harness.cross_encoder_rerank(model=Lengths(), top_n=None) for _ in range(3)]
    (got,) = harness.noted(harness.cascade_rerank(stages=stages), harness.candidates([Passage("a", "four")]), QUERY)
    assert got.note["rerank_scores"] == {
        "CrossEncoderRerank": 4.0,
        "CrossEncoderRerank 2": 4.0,
        "CrossEncoderRerank 3": 4.0,
    }


@pytest.mark.parametrize("error", [RuntimeError("out of order"), InvalidInputError("not so"), TimeoutError("the net")])
def test_a_stage_that_fails_leaves_the_order_before_it(
    harness: Any, colbert: ColBERTModel, passages: list[Passage], error: Exception
) -> None:
    chosen = candidates_of(passages)
    broken = harness.cross_encoder_rerank(model=Failing(error), top_n=2)
    first = harness.colbert_rerank(model=colbert, top_n=4)
    got = harness.noted(harness.cascade_rerank(stages=[first, broken]), harness.candidates(chosen), QUERY)
    assert [(row.id, row.score) for row in got] == [
        (hit.id, hit.score) for hit in rerank(QUERY, chosen, colbert, top_n=4)
    ]
    assert {row.note["rerank_stopped"] for row in got} == {f"CrossEncoderRerank: {type(error).__name__}: {error}"}
    assert {row.note["rerank_stage"] for row in got} == {"ColBERTRerank"}


def test_a_first_stage_that_fails_leaves_the_order_given(harness: Any, passages: list[Passage]) -> None:
    chosen = candidates_of(passages)
    broken = harness.cross_encoder_rerank(model=Failing(RuntimeError("out of order")))
    got = harness.noted(harness.cascade_rerank(stages=[broken], top_n=3), harness.candidates(chosen), QUERY)
    assert [row.id for row in got] == [passage.id for passage in chosen[:3]]
    assert {row.note["rerank_stopped"] for row in got} == {"CrossEncoderRerank: RuntimeError: out of order"}


async def test_when_the_time_is_over_the_order_before_comes_back(
    harness: Any, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    chosen, waiting = candidates_of(passages), Waiting()
    # So that the first stage has what it needs at hand.
    first = harness.colbert_rerank(model=colbert, top_n=4)
    expected = ids(harness.rerank(first, harness.candidates(chosen), QUERY))
    cascade = harness.cascade_rerank(
        stages=[first, harness.cross_encoder_rerank(model=waiting)], time_budget=PATIENCE / 15
    )
    try:
        got = harness.noted(cascade, harness.candidates(chosen), QUERY)
        assert [row.id for row in got] == expected
        assert {row.note["rerank_stopped"] for row in got} == {
            f"CrossEncoderRerank: the time budget of {PATIENCE / 15:g} s ran out"
        }
    finally:
        waiting.may.set()
    # Now it answers at once, and nothing was left behind by the call that was given up.
    again = harness.noted(cascade, harness.candidates(chosen), QUERY)
    assert all("rerank_stopped" not in row.note for row in again)
    assert ids(await harness.arerank(cascade, harness.candidates(chosen), QUERY)) == [row.id for row in again]


def test_nothing_and_nonsense(harness: Any, cascade: Any, passages: list[Passage]) -> None:
    assert harness.rerank(cascade, [], QUERY) == []
    with pytest.raises(InvalidInputError, match="query is ' '"):
        harness.rerank(cascade, harness.candidates(passages[:2]), " ")


async def test_iterators_of_stages_and_of_candidates(harness: Any, cascade: Any, passages: list[Passage]) -> None:
    chosen = candidates_of(passages)
    same = harness.cascade_rerank(stages=iter(cascade.stages))
    expected = harness.rerank(cascade, harness.candidates(chosen), QUERY)
    assert harness.rerank(same, iter(harness.candidates(chosen)), QUERY) == expected
    assert await harness.arerank(same, iter(harness.candidates(chosen)), QUERY) == expected


def test_what_is_no_stage_is_refused(harness: Any, cascade: Any, cross_encoder: CrossEncoderModel) -> None:
    component = harness.cross_encoder_rerank(model=cross_encoder)
    for stages, message in (
        ([], "no stages"),
        (component, "stages is one CrossEncoderRerank; expected a list"),
        ("stages", "stages is one str; expected a list"),
        (None, "stages is one NoneType; expected a list"),
        ([cross_encoder], "of type CrossEncoderModel; expected ColBERTRerank or CrossEncoderRerank"),
        ([component, cascade], "of type CascadeRerank; expected ColBERTRerank or CrossEncoderRerank"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            harness.cascade_rerank(stages=stages)
    for wrong, message in (
        ({"top_n": -1}, "top_n is -1"),
        ({"top_n": "2"}, "top_n is '2'"),
        ({"time_budget": 0}, "time_budget is 0"),
        ({"time_budget": "1"}, "time_budget is '1'"),
        ({"time_budget": float("nan")}, "time_budget is nan"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            harness.cascade_rerank(stages=[component], **wrong)


def test_options_set_later(harness: Any, cascade: Any, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    whole = ids(harness.rerank(cascade, candidates, QUERY))
    cascade.stages[1].top_n = 3
    assert ids(harness.rerank(cascade, candidates, QUERY)) == whole[:3]
    cascade.top_n = 1
    assert ids(harness.rerank(cascade, candidates, QUERY)) == whole[:1]
    cascade.time_budget = -1.0
    with pytest.raises(InvalidInputError, match="time_budget is -1"):
        harness.rerank(cascade, candidates, QUERY)
