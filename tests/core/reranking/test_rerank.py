"""The order, cut and threshold of `rerank`, with scorers of known scores."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_integrations import (
    Candidate,
    Cascade,
    ColBERTModel,
    CrossEncoderModel,
    Hit,
    InvalidInputError,
    Passage,
    PlainScorer,
    Reranker,
    rerank,
)
from rerank_integrations.core.ranking import best_first


class Given:
    """Scorer by the number in a text; it records its calls."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.asked.append((query, texts))
        return [float(text) for text in texts]


class Fixed:
    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def score(self, query: str, texts: list[str]) -> Any:
        return self.scores


def test_best_first_and_ties_as_they_came() -> None:
    passages = [Passage(key, text) for key, text in [("z", "1"), ("y", "2"), ("b", "1"), ("a", "2"), ("x", "3")]]
    hits = rerank("query", passages, Given())
    assert [(hit.id, hit.score, hit.rank) for hit in hits] == [
        ("x", 3.0, 1), ("y", 2.0, 2), ("a", 2.0, 3), ("z", 1.0, 4), ("b", 1.0, 5)
    ]  # fmt: skip


@given(
    scores=st.lists(st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 0.25, 1.0, math.inf]) | st.floats(allow_nan=False)),
    top_n=st.none() | st.integers(0, 12),
    threshold=st.none() | st.floats(allow_nan=False) | st.sampled_from([0.0, 0.25, 1]),
)
def test_it_is_a_stable_sort_then_a_threshold_then_a_cut(
    scores: list[float], top_n: int | None, threshold: float | None
) -> None:
    expected = list(enumerate(scores))
    expected.sort(key=lambda pair: pair[1], reverse=True)
    expected = [pair for pair in expected if threshold is None or pair[1] >= threshold][:top_n]
    texts = [repr(score) for score in scores]
    assert best_first(scores, range(len(scores)), top_n=top_n, threshold=threshold) == expected
    hits = rerank(
        "query", [Passage(f"p{n}", t) for n, t in enumerate(texts)], Given(), top_n=top_n, threshold=threshold
    )
    assert [(hit.id, hit.score) for hit in hits] == [(f"p{place}", score) for place, score in expected]
    assert [hit.rank for hit in hits] == list(range(1, len(expected) + 1))


def test_the_threshold_is_inclusive_and_comes_before_the_cut() -> None:
    passages = ["0.5", "0.25", "0.75", "0.2"]
    assert [hit.score for hit in rerank("query", passages, Given(), threshold=0.25)] == [0.75, 0.5, 0.25]
    assert [hit.score for hit in rerank("query", passages, Given(), threshold=0.25, top_n=2)] == [0.75, 0.5]
    assert rerank("query", passages, Given(), threshold=9) == []
    assert len(rerank("query", passages, Given(), threshold=-math.inf)) == 4


def test_top_n_keeps_that_many_or_all() -> None:
    passages = ["1", "2", "3"]
    assert [len(rerank("query", passages, Given(), top_n=n)) for n in (None, 1, 3, 99)] == [3, 1, 3, 3]


def test_nothing_is_scored_for_nothing() -> None:
    scorer = Given()
    assert rerank("query", [], scorer) == []
    assert rerank("query", iter(()), scorer) == []
    assert rerank("query", ["1"], scorer, top_n=0) == []
    assert scorer.asked == []


def test_it_takes_what_a_passage_can_be_and_returns_new_hits() -> None:
    given: list[Any] = [
        "1",
        Passage("p", "2", {"n": [1]}),
        Hit("h", 99.0, 7, "3", {"m": {"k": 1}}),
        {"text": "4"},
        {"id": "m", "text": "5", "metadata": {"x": 1}},
        Passage("q", "2", {"n": [1]}),
    ]
    before = copy.deepcopy(given)
    scorer = Given()
    hits = rerank("query", (item for item in given), scorer)
    assert scorer.asked == [("query", ["1", "2", "3", "4", "5", "2"])]
    assert [(hit.id, hit.score, hit.rank) for hit in hits if len(hit.id) == 1] == [
        ("m", 5.0, 1), ("h", 3.0, 3), ("p", 2.0, 4), ("q", 2.0, 5)
    ]  # fmt: skip
    assert [dict(hit.metadata) for hit in hits] == [{"x": 1}, {}, {"m": {"k": 1}}, {"n": [1]}, {"n": [1]}, {}]
    hits[2].metadata["new"] = 1  # type: ignore[index]
    assert given == before


def test_a_passage_that_comes_again_is_scored_and_returned_once() -> None:
    scorer = Given()
    found_twice = [Passage("a", "1", {"by": "first"}), Passage("b", "2"), Passage("a", "1", {"by": "second"}), "3", "3"]
    hits = rerank("query", found_twice, scorer)
    assert scorer.asked == [("query", ["1", "2", "3"])]
    assert [(hit.text, hit.note["retrieval_rank"]) for hit in hits] == [("3", 4), ("2", 2), ("1", 1)]
    assert hits[-1].metadata == {"by": "first"}
    # Another text under the same id, or the same text under another id, is another passage.
    others = [Passage("a", "1"), Passage("a", "2"), Passage("b", "1")]
    assert len(rerank("query", others, scorer)) == 3


def test_candidates_without_an_id_or_of_other_content_are_not_equal() -> None:
    alike = [Candidate(None, "1"), Candidate(None, "1"), Candidate("a", "1"), Candidate("a", "1", content="one")]
    reranker = Reranker(PlainScorer(Given()), max_candidates=4)
    assert [ranked.place for ranked in reranker.rank("query", [alike[2], *alike, alike[3]])] == [0, 1, 2, 4]
    assert [ranked.place for ranked in Cascade([("only", reranker)]).rank("query", [alike[2], *alike])] == [0, 1, 2, 4]


@pytest.mark.parametrize("scores", [np.array([1, 2], np.float32), (1, 2), [np.float64(1), 2], iter([1.0, 2.0])])
def test_scores_become_python_floats(scores: Any) -> None:
    hits = rerank("query", ["a", "b"], Fixed(scores))
    assert [(hit.text, hit.score) for hit in hits] == [("b", 2.0), ("a", 1.0)]
    assert all(type(hit.score) is float for hit in hits)


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 2.0, 3.0], None, 7, [1.0, None], ["a", "b"], [[1.0], [2.0]]])
def test_scores_that_are_not_one_number_each(scores: Any) -> None:
    with pytest.raises(InvalidInputError, match="scorer gave"):
        rerank("query", ["a", "b"], Fixed(scores))


def test_a_score_that_is_nan_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"number 1 \(.*\) is NaN"):
        rerank("query", ["a", "b"], Fixed([1.0, math.nan]))
    with pytest.raises(InvalidInputError, match="NaN"):
        best_first([math.nan], [0])


@pytest.mark.parametrize("top_n", [-1, True, 2.0, "3"])
def test_top_n_that_is_no_count(top_n: Any) -> None:
    with pytest.raises(InvalidInputError, match="top_n"):
        rerank("query", ["1"], Given(), top_n=top_n)


@pytest.mark.parametrize("threshold", [math.nan, True, "0.5"])
def test_threshold_that_is_no_number(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match="threshold"):
        rerank("query", ["1"], Given(), threshold=threshold)


@pytest.mark.parametrize("query", ["", " \n", None, 7])
def test_a_query_without_text(query: Any) -> None:
    for passages in (["1"], []):
        with pytest.raises(InvalidInputError, match="query"):
            rerank(query, passages, Given())


@pytest.mark.parametrize("passages", ["text", {"text": "x"}, Passage("a", "x"), 7, None, [7], [None]])
def test_passages_that_are_none(passages: Any) -> None:
    with pytest.raises(InvalidInputError, match="passage"):
        rerank("query", passages, Given())


def test_the_order_keeps_equal_keys_in_the_order_of_their_ties() -> None:
    assert best_first([1.0, 2.0, 2.0], ["c", "b", "a"]) == [(2, 2.0), (1, 2.0), (0, 1.0)]


def test_both_models_are_scorers(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
    texts = ["A zip archive keeps many files together.", "Heavy rain flooded the river.", ""]
    for scorer in (colbert, cross_encoder):
        expected = scorer.score("read a zip file", texts)
        hits = rerank("read a zip file", texts, scorer, top_n=2)
        assert [hit.score for hit in hits] == sorted(expected, reverse=True)[:2]
        assert [hit.text for hit in hits] == [texts[expected.index(hit.score)] for hit in hits]
