"""The four scales of scores, thresholds on them, and scores that are not numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_cross_encoder
from checkpoints.cross_encoder import write_far_logits
from corpus import ENGLISH, QUERIES
from toy import Floats, ToyEncoder

from rerank_integrations import (
    Candidate,
    Cascade,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    InvalidInputError,
    Passage,
    Reranker,
    rerank,
)
from rerank_integrations.core.reranking import as_candidate_scorer

TEXTS = [*ENGLISH[:12], ""]


def naive_maxsim(model: ColBERTModel, query: str, text: str) -> float:
    (asked,), (tokens,) = model.encode_queries([query]), model.encode_documents([text])
    return sum(max(float(np.dot(word, token)) for token in tokens) for word in asked)


def test_the_sum_and_the_mean_of_maxsim(colbert: ColBERTModel) -> None:
    for query in QUERIES[:3]:
        sums = {hit.text: hit for hit in rerank(query, TEXTS, ColBERTScorer(colbert))}
        means = {hit.text: hit for hit in rerank(query, TEXTS, ColBERTScorer(colbert, scale="mean"))}
        tokens = len(colbert.encode_queries([query])[0])
        for text in TEXTS:
            naive = naive_maxsim(colbert, query, text)
            assert sums[text].score == pytest.approx(naive, abs=1e-4)
            assert means[text].score == pytest.approx(naive / tokens, abs=1e-5)
            assert -1 <= means[text].score <= 1
            assert sums[text].note["score_scale"] == "maxsim_sum"
            assert means[text].note["score_scale"] == "maxsim_mean"


def test_the_mean_of_texts_and_queries_without_tokens() -> None:
    scorer = ColBERTScorer(ToyEncoder(), scale="mean")
    assert scorer.score("two words", ["two words", "...", "words"]) == pytest.approx(
        [1.0, -1.0, scorer.score("two words", ["words"])[0]], abs=1e-5
    )
    assert scorer.score("...", ["words"]) == [0.0]


def test_logit_and_probability(cross_encoder_dir: Path) -> None:
    from sentence_transformers import CrossEncoder

    reference = CrossEncoder(str(cross_encoder_dir), device="cpu")
    pairs = [(QUERIES[0], text) for text in TEXTS]
    for activation, function, scale in [
        ("raw", torch.nn.Identity(), "logit"),
        ("sigmoid", torch.nn.Sigmoid(), "probability"),
    ]:
        model = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu", activation=activation)
        expected = dict(zip(TEXTS, reference.predict(pairs, activation_fn=function).tolist(), strict=True))
        hits = rerank(QUERIES[0], TEXTS, model)
        assert {hit.text: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)
        assert {hit.note["score_scale"] for hit in hits} == {scale}


@pytest.mark.parametrize(("named", "scale"), [("Sigmoid", "probability"), ("Identity", "logit"), ("Tanh", "own")])
def test_the_checkpoint_s_own_scale(tmp_path: Path, named: str, scale: str) -> None:
    path = write_cross_encoder(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    name = "linear.Identity" if named == "Identity" else f"activation.{named}"
    config["sentence_transformers"] = {"activation_fn": f"torch.nn.modules.{name}"}
    (path / "config.json").write_text(json.dumps(config))
    model = CrossEncoderModel(path, dtype="float32", device="cpu")
    assert rerank("rain", TEXTS[:2], model)[0].note["score_scale"] == scale


@pytest.mark.parametrize("shift", [-800.0, -20.0, 15.0, 60.0])
def test_rounded_scores_keep_the_order_of_their_logits(tmp_path: Path, shift: float) -> None:
    path = write_far_logits(tmp_path, shift)
    raw, shown = (
        CrossEncoderModel(path, dtype="float32", device="cpu", activation=activation) for activation in ("raw", "model")
    )
    given = list(dict.fromkeys(TEXTS))
    logits = dict(zip(given, raw.score(QUERIES[0], given), strict=True))
    expected = [text for text, _ in sorted(logits.items(), key=lambda item: -item[1])]
    assert expected != given
    hits = rerank(QUERIES[0], given, shown)
    assert [hit.text for hit in hits] == expected
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    if abs(shift) > 40:
        assert {hit.score for hit in hits} == {float(shift > 0)}
    else:
        # A sigmoid in single precision is 1.0 from a logit of 17 on, one in double precision only from 37 on.
        assert len({hit.score for hit in hits}) == len(given)
    assert [hit.text for hit in rerank(QUERIES[0], given, shown, top_n=3)] == expected[:3]
    # A threshold is on the scores that are shown: equal ones are kept or left together.
    assert [hit.text for hit in rerank(QUERIES[0], given, shown, threshold=hits[-1].score)] == expected
    first = Reranker(as_candidate_scorer(shown), top_n=5)
    cascade = Cascade([("first", first), ("second", Reranker(as_candidate_scorer(raw)))])
    assert [hit.text for hit in rerank(QUERIES[0], given, cascade)] == expected[:5]
    windows = [
        {hit.text: hit.note.get("window_start") for hit in rerank(QUERIES[0], given, model, window=8, stride=4)}
        for model in (raw, shown)
    ]
    assert windows[0] == windows[1]


def test_scores_tie_where_their_logits_do(tmp_path: Path) -> None:
    model = CrossEncoderModel(write_far_logits(tmp_path, 60.0), dtype="float32", device="cpu")
    hits = rerank(QUERIES[0], [Passage(name, "the same text") for name in "zay"], model)
    assert [hit.id for hit in hits] == ["z", "a", "y"]


def test_an_activation_that_is_not_known_to_rise_orders_by_what_it_gives(tmp_path: Path) -> None:
    path = write_far_logits(tmp_path, 60.0)
    config = json.loads((path / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.Tanhshrink"}
    (path / "config.json").write_text(json.dumps(config))
    hits = rerank(QUERIES[0], TEXTS, CrossEncoderModel(path, dtype="float32", device="cpu"))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.note["score_scale"] for hit in hits} == {"own"}


class Given:
    """Scorer by the number in a text."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(text) for text in texts]


def test_a_scorer_of_ones_own_has_its_own_scale() -> None:
    assert rerank("query", ["1"], Given())[0].note == {"retrieval_rank": 1, "score_scale": "own"}


@pytest.mark.parametrize("scorer", [0, 1, 2, 3])
def test_thresholds_are_inclusive_on_every_scale(
    colbert: ColBERTModel, cross_encoder: CrossEncoderModel, scorer: int
) -> None:
    chosen = [colbert, ColBERTScorer(colbert, scale="mean"), cross_encoder, ColBERTScorer(colbert, window=8)][scorer]
    scores = [hit.score for hit in rerank(QUERIES[1], TEXTS, chosen)]
    for place in (0, 4, len(scores) - 1):
        kept = [hit.score for hit in rerank(QUERIES[1], TEXTS, chosen, threshold=scores[place])]
        assert kept == [score for score in scores if score >= scores[place]]
        above = math.nextafter(scores[place], math.inf)
        assert rerank(QUERIES[1], TEXTS, chosen, threshold=above) == rerank(QUERIES[1], TEXTS, chosen, top_n=place)


def test_numpy_thresholds_mean_what_they_say() -> None:
    texts = ["0.1", "0.2", "0.30000000000000004"]
    assert len(rerank("query", texts, Given(), threshold=np.float64(0.2))) == 2
    # As float32, 0.1 lies a little above 0.1.
    assert len(rerank("query", texts, Given(), threshold=np.float32(0.1))) == 2  # type: ignore[arg-type]
    assert len(rerank("query", texts, Given(), threshold=np.int64(0), top_n=np.uint8(2))) == 2  # type: ignore[arg-type]
    for wrong in (np.bool_(True), np.float32("nan"), np.array([1.0])):
        with pytest.raises(InvalidInputError, match="threshold"):
            rerank("query", texts, Given(), threshold=wrong)  # type: ignore[arg-type]
    for wrong in (np.bool_(True), np.float64(2)):
        with pytest.raises(InvalidInputError, match="top_n"):
            rerank("query", texts, Given(), top_n=wrong)  # type: ignore[arg-type]


def test_infinite_scores_have_their_order() -> None:
    hits = rerank("query", ["-inf", "1", "inf", Passage("other", "-inf")], Given())
    assert [hit.score for hit in hits] == [math.inf, 1.0, -math.inf, -math.inf]
    assert len(rerank("query", ["-inf", "1", "inf"], Given(), threshold=math.inf)) == 1


class Broken(ToyEncoder):
    """Scorer that returns NaN for one text."""

    def encode_documents(self, texts: Any, show_progress: bool = False) -> list[Floats]:
        return [
            np.full((2, 16), np.nan, np.float32) if text == "broken" else vectors
            for text, vectors in zip(texts, super().encode_documents(texts), strict=True)
        ]


def test_a_score_that_is_nan_names_its_passage() -> None:
    given = [Passage("sound", "rain"), Passage("the bad one", "broken")]
    with pytest.raises(InvalidInputError, match=r"number 1 \('the bad one'\) is NaN"):
        rerank("rain", given, ColBERTScorer(Broken()))
    with pytest.raises(InvalidInputError, match="number 1 is NaN"):
        Reranker(ColBERTScorer(Broken())).rank("rain", [Candidate(None, "rain"), Candidate(None, "broken")])
    with pytest.raises(InvalidInputError, match=r"number 0 .* is NaN"):
        rerank("rain", ["nan"], Given())


def test_what_the_retriever_gave_is_kept() -> None:
    from rerank_integrations import Hit

    given = [Hit("a", 0.5, 1, "1"), Hit("b", math.nan, 2, "3"), Passage("c", "2")]
    hits = rerank("query", given, Given())
    assert [(hit.id, hit.rank, hit.note.get("retrieval_score"), hit.note["retrieval_rank"]) for hit in hits] == [
        ("b", 1, None, 2), ("c", 2, None, 3), ("a", 3, 0.5, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [-1, 1.5, True, "2"])
def test_max_candidates_of_a_wrong_kind(count: Any) -> None:
    with pytest.raises(InvalidInputError, match="max_candidates"):
        Reranker(ColBERTScorer(ToyEncoder()), max_candidates=count)


def test_max_candidates_scores_the_first() -> None:
    toy = ToyEncoder()
    candidates = [Candidate(None, f"word {number}") for number in range(9)]
    for count, kept in [(0, 0), (4, 4), (99, 9), (None, 9), (np.int64(2), 2)]:
        toy.encoded.clear()
        ranked = Reranker(ColBERTScorer(toy, cache_bytes=0), max_candidates=count).rank("word", candidates)  # type: ignore[arg-type]
        assert sorted(one.place for one in ranked) == list(range(kept))
        assert toy.encoded == [one.text for one in candidates[:kept]]
