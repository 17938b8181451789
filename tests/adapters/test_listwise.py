"""Listwise scorers and calibrated scores in both frameworks: as in the core."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ranked_rows import candidates_of, noted_of_hits

from rerank_integrations import (
    Calibration,
    ColBERTModel,
    CrossEncoderModel,
    InvalidInputError,
    Passage,
    rerank,
)

QUERY = "how do bees find their way"
CALIBRATION = Calibration("platt", slope=0.5, intercept=-1.0, pairs=200, relevant=40, brier=0.1)


class LengthRanks:
    """Score a text by how many of the others are longer; remember how many texts came together."""

    def __init__(self, max_candidates: int | None = None) -> None:
        self.max_candidates = max_candidates
        self.calls: list[int] = []

    def score_list(self, query: str, texts: list[str]) -> list[float]:
        self.calls.append(len(texts))
        return [float(sum(len(other) > len(text) for other in texts)) for text in texts]


async def test_a_set_is_scored_in_one_call(harness: Any, passages: list[Passage]) -> None:
    chosen, scorer = candidates_of(passages), LengthRanks()
    reranker = harness.cross_encoder_rerank(model=scorer, top_n=4)
    candidates = harness.candidates(chosen)
    assert harness.noted(reranker, candidates, QUERY) == noted_of_hits(rerank(QUERY, chosen, LengthRanks(), top_n=4))
    assert scorer.calls == [len(chosen)]
    assert await harness.arerank(reranker, candidates, QUERY) == harness.rerank(reranker, candidates, QUERY)
    assert scorer.calls == [len(chosen)] * 3


def test_more_than_it_takes_is_refused(harness: Any, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    with pytest.raises(InvalidInputError, match=r"max_candidates is 6 .*LengthRanks, which takes 5 together"):
        harness.cross_encoder_rerank(model=LengthRanks(5), max_candidates=6)
    with pytest.raises(InvalidInputError, match="takes 5 together at most; expected max_candidates=5"):
        harness.rerank(harness.cross_encoder_rerank(model=LengthRanks(5)), candidates, QUERY)
    scorer = LengthRanks(5)
    assert harness.rerank(harness.cross_encoder_rerank(model=scorer, max_candidates=5, top_n=None), candidates, QUERY)
    assert scorer.calls == [5]
    with pytest.raises(InvalidInputError, match="window"):
        harness.cross_encoder_rerank(model=LengthRanks(), window=16)


def test_a_cascade_ends_with_a_set(harness: Any, colbert: ColBERTModel, passages: list[Passage]) -> None:
    scorer = LengthRanks(3)
    stages = [
        harness.colbert_rerank(model=colbert, top_n=3),
        harness.cross_encoder_rerank(model=scorer, top_n=None),
    ]
    got = harness.noted(harness.cascade_rerank(stages=stages), harness.candidates(candidates_of(passages)), QUERY)
    assert scorer.calls == [3]
    assert [item.note["rerank_stage"] for item in got] == ["CrossEncoderRerank"] * 3


@pytest.mark.parametrize("as_dict", [False, True], ids=["object", "dictionary"])
def test_scores_are_probabilities_by_a_calibration(
    harness: Any, colbert: ColBERTModel, cross_encoder: CrossEncoderModel, passages: list[Passage], as_dict: bool
) -> None:
    chosen = candidates_of(passages)
    candidates = harness.candidates(chosen)
    calibration = CALIBRATION.to_dict() if as_dict else CALIBRATION
    for component, model in ((harness.colbert_rerank, colbert), (harness.cross_encoder_rerank, cross_encoder)):
        reranker = component(model=model, top_n=None, calibration=calibration, score_threshold=0.3)
        expected = rerank(QUERY, chosen, model, calibration=CALIBRATION, threshold=0.3)
        assert harness.noted(reranker, candidates, QUERY) == noted_of_hits(expected)
        assert all(hit.note["score_scale"] == "probability" and 0.3 <= hit.score <= 1 for hit in expected)
        texts = [passage.text for passage in chosen]
        plain = component(model=model).score(QUERY, texts)
        assert reranker.score(QUERY, texts) == [CALIBRATION.probability(score) for score in plain]
        back = harness.loads(harness.dumps(reranker), like=reranker)
        assert json.loads(harness.dumps(back)) == json.loads(harness.dumps(reranker))
        assert harness.noted(back, candidates, QUERY) == noted_of_hits(expected)


def test_a_calibration_is_set_later(harness: Any, cross_encoder: CrossEncoderModel, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    reranker = harness.cross_encoder_rerank(model=cross_encoder, top_n=4)
    before = harness.noted(reranker, candidates, QUERY)
    reranker.calibration = CALIBRATION
    expected = rerank(QUERY, candidates_of(passages), cross_encoder, calibration=CALIBRATION, top_n=4)
    assert harness.noted(reranker, candidates, QUERY) == noted_of_hits(expected)
    reranker.calibration = None
    assert harness.noted(reranker, candidates, QUERY) == before


@pytest.mark.parametrize("calibration", ["calibration.json", {"method": "beta"}, 3, {"method": "platt", "slope": -1}])
def test_what_is_no_calibration_is_refused(harness: Any, colbert: ColBERTModel, calibration: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"calibration|method|slope"):
        harness.colbert_rerank(model=colbert, calibration=calibration)


async def test_an_instruction_reaches_a_language_model(harness: Any, passages: list[Passage], tmp_path: Any) -> None:
    from checkpoints.rerankers import write_qwen3_reranker

    path = str(write_qwen3_reranker(tmp_path))
    chosen, arguments = candidates_of(passages, 4), {"name_or_path": path, "dtype": "float32", "device": "cpu"}
    instructed = harness.cross_encoder_rerank(model={**arguments, "instruction": "Find the law"}, top_n=None)
    expected = rerank(QUERY, chosen, CrossEncoderModel(**arguments), instruction="Find the law")
    got = harness.noted(instructed, harness.candidates(chosen), QUERY)
    assert got == noted_of_hits(expected)
    assert got != noted_of_hits(rerank(QUERY, chosen, CrossEncoderModel(**arguments)))
    assert harness.loads(harness.dumps(instructed), like=instructed).model.options() == instructed.model.options()
