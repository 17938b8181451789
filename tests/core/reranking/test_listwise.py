"""Listwise scorers: scores that depend on the whole set of candidates, which comes in one call."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rerank_integrations import (
    Candidate,
    Cascade,
    InvalidInputError,
    ListwiseCandidateScorer,
    Passage,
    Reranker,
    fit_threshold,
    rerank,
)

WORDS = ["an archive of files", "a table of rows", "an archive", "files in an archive of letters", "rows"]


class Shares:
    """Score a text by its share of all words of the query in all texts; remember the calls."""

    def __init__(self, max_candidates: int | None = None) -> None:
        self.max_candidates = max_candidates
        self.calls: list[tuple[str, list[str]]] = []

    def score_list(self, query: str, texts: list[str]) -> list[float]:
        self.calls.append((query, texts))
        counts = [sum(text.split().count(word) for word in query.split()) for text in texts]
        return [count / max(1, sum(counts)) for count in counts]


def test_all_candidates_come_in_one_call_and_the_others_change_a_score() -> None:
    scorer = Shares()
    hits = rerank("an archive", WORDS, scorer)
    assert scorer.calls == [("an archive", WORDS)]
    assert [hit.text for hit in hits] == [WORDS[0], WORDS[2], WORDS[3], WORDS[1], WORDS[4]]
    assert [hit.score for hit in hits] == [2 / 6, 2 / 6, 2 / 6, 0.0, 0.0]
    assert hits[0].note["score_scale"] == "own"
    # The same text beside fewer others.
    assert rerank("an archive", WORDS[2:3], scorer)[0].score == 1.0
    assert rerank("an archive", WORDS, scorer, top_n=1, threshold=0.3)[0].text == WORDS[0]


def test_no_score_is_remembered_and_a_passage_comes_once() -> None:
    scorer = Shares()
    twice = [Passage("a", "an archive"), Passage("b", "an archive"), Passage("a", "an archive")]
    assert [hit.id for hit in rerank("archive", twice, scorer)] == ["a", "b"]
    rerank("archive", twice, scorer)
    assert scorer.calls == [("archive", ["an archive", "an archive"])] * 2


def test_no_set_is_divided_and_no_two_are_mixed() -> None:
    scorer = Shares()
    many = [Candidate(None, f"text {number}") for number in range(3000)]
    ranked = Reranker(ListwiseCandidateScorer(scorer)).rank_many(["text 7", "text 8"], [many, many[:2]])
    assert [(query, len(texts)) for query, texts in scorer.calls] == [("text 7", 3000), ("text 8", 2)]
    assert ranked[0][0].place == 7
    assert Reranker(ListwiseCandidateScorer(scorer)).rank_many(["nothing"], [[]]) == [[]]
    assert len(scorer.calls) == 2


def test_more_candidates_than_it_takes_are_refused() -> None:
    scorer = Shares(max_candidates=4)
    with pytest.raises(
        InvalidInputError, match=r"candidates is 5 .* Shares, which takes 4 .*expected max_candidates=4"
    ):
        rerank("an archive", WORDS, scorer)
    assert scorer.calls == []
    with pytest.raises(InvalidInputError, match=r"max_candidates is 5 .* takes 4 together at most"):
        Reranker(ListwiseCandidateScorer(scorer), max_candidates=5)
    best = Reranker(ListwiseCandidateScorer(scorer), max_candidates=4).rank(
        "an archive", [Candidate(None, text) for text in WORDS]
    )
    assert sorted(ranked.place for ranked in best) == [0, 1, 2, 3]
    assert len(rerank("an archive", WORDS[:4], scorer)) == 4


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "4"])
def test_the_most_is_a_whole_number(most: Any) -> None:
    with pytest.raises(InvalidInputError, match="max_candidates of a scorer is"):
        rerank("a query", ["a text"], Shares(most))


def test_windows_and_strict_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"window is 16 .*type Shares"):
        rerank("a query", ["a text"], Shares(), window=16)
    with pytest.raises(InvalidInputError, match="strict is True with a scorer of type Shares"):
        rerank("a query", ["a text"], Shares(), strict=True)


class Broken(Shares):
    def __init__(self, scores: Any) -> None:
        super().__init__()
        self.scores = scores

    def score_list(self, query: str, texts: list[str]) -> list[float]:
        return self.scores  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "gave 1 scores for 2 texts"),
        (None, "gave None; expected a list of numbers"),
        (["a", "b"], "expected a list of numbers"),
        ([1.0, math.nan], "passage number 1 .*is NaN"),
    ],
)
def test_what_is_no_score_per_text_is_refused(scores: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rerank("a query", ["one text", "another"], Broken(scores))


def test_a_cascade_gives_it_what_the_stage_before_keeps() -> None:
    class Longest:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [float(len(text)) for text in texts]

    from rerank_integrations import PlainScorer

    scorer = Shares(max_candidates=2)
    cascade = Cascade(
        [("longest", Reranker(PlainScorer(Longest()), top_n=2)), ("list", Reranker(ListwiseCandidateScorer(scorer)))]
    )
    hits = rerank("files", WORDS, cascade)
    assert scorer.calls == [("files", [WORDS[3], WORDS[0]])]
    assert [hit.note["rerank_stage"] for hit in hits] == ["list", "list"]


def test_a_threshold_is_fitted_with_the_texts_of_a_query_together() -> None:
    scorer = Shares()
    pairs = [("archive", text, "archive" in text) for text in WORDS]
    assert fit_threshold(scorer, pairs).threshold == pytest.approx(1 / 3)
    assert scorer.calls == [("archive", WORDS)]
