"""`fit_calibration`, compared with Platt's objective minimised by another solver, and with pooling by hand."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from rerank_integrations import (
    Calibration,
    CalibrationMethod,
    Candidate,
    Cascade,
    InvalidInputError,
    PlainScorer,
    Reranker,
    fit_calibration,
    rerank,
)

Doubles = NDArray[np.float64]
METHODS: list[CalibrationMethod] = ["platt", "isotonic"]


class Given:
    """Scorer by the number in a text."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(text) for text in texts]


def sample(count: int, seed: int = 3, scale: float = 1.0, shift: float = 0.0) -> tuple[Doubles, NDArray[np.bool_]]:
    """Return scores and labels, of which the probability of a label is a sigmoid of a score."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2, count)
    labels = random.random(count) < 1 / (1 + np.exp(-(1.3 * scores - 0.7)))
    return scores * scale + shift, labels


def pairs_of(scores: Doubles, labels: NDArray[np.bool_]) -> list[tuple[str, str, bool]]:
    rows = zip(scores.tolist(), labels.tolist(), strict=True)
    return [(f"query {number % 5}", repr(score), label) for number, (score, label) in enumerate(rows)]


def platt(scores: Doubles, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept of Platt's regularised likelihood, by BFGS."""
    relevant = labels.sum()
    targets = np.where(labels, (relevant + 1) / (relevant + 2), 1 / (len(labels) - relevant + 2))

    def loss(parameters: Doubles) -> float:
        logits = parameters[0] * scores + parameters[1]
        return float(np.sum(np.logaddexp(0, logits) - targets * logits))

    return tuple(minimize(loss, [0.1, 0.0], tol=1e-12).x)


def pooled(scores: Doubles, labels: NDArray[np.bool_]) -> dict[float, float]:
    """Return each score's level by pooling adjacent violators."""
    blocks: list[list[Any]] = []
    for score in np.unique(scores):
        of_score = labels[scores == score]
        blocks.append([[score], float(of_score.sum()), len(of_score)])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1], blocks[-1][2] + last[2]]
    return {score: total / count for members, total, count in blocks for score in members}


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.98), (50.0, -1e4)], ids=["one", "small", "far"])
def test_platt_is_the_minimum_of_his_objective(scale: float, shift: float) -> None:
    standard, labels = sample(400)
    slope, intercept = platt(standard, labels)
    fit = fit_calibration(Given(), pairs_of(standard * scale + shift, labels))
    expected = 1 / (1 + np.exp(-(slope * standard + intercept)))
    assert [fit.probability(score) for score in standard * scale + shift] == pytest.approx(expected, abs=1e-4)
    assert (fit.method, fit.pairs, fit.relevant) == ("platt", 400, labels.sum())
    assert fit.brier == pytest.approx(np.mean((expected - labels) ** 2), abs=1e-5)
    assert fit.slope * scale == pytest.approx(1.3, abs=0.3)


def test_isotonic_is_pooling_adjacent_violators() -> None:
    scores, labels = sample(300)
    scores = scores.round(1)
    fit = fit_calibration(Given(), pairs_of(scores, labels), method="isotonic")
    levels = pooled(scores, labels)
    assert [fit.probability(score) for score in levels] == pytest.approx(list(levels.values()), abs=1e-9)
    # Straight lines between the scores, and constant outside of them.
    first, second = sorted(levels)[50:52]
    assert fit.probability((first + second) / 2) == pytest.approx((levels[first] + levels[second]) / 2)
    assert fit.probability(-1e9) == fit.probability(-math.inf) == levels[min(levels)]
    assert fit.probability(1e9) == fit.probability(math.inf) == levels[max(levels)]


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_are_true_on_pairs_that_it_was_not_fitted_to(method: CalibrationMethod) -> None:
    scores, labels = sample(4000)
    fit = fit_calibration(Given(), pairs_of(scores[:2000], labels[:2000]), method=method)
    probabilities = np.array([fit.probability(score) for score in scores[2000:]])
    # Mean absolute difference in ten groups of as many pairs: the expected calibration error.
    groups = np.array_split(np.argsort(probabilities), 10)
    errors = [abs(probabilities[group].mean() - labels[2000:][group].mean()) for group in groups]
    assert np.mean(errors) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_it_is_plain_data(method: CalibrationMethod, tmp_path: Path) -> None:
    fit = fit_calibration(Given(), pairs_of(*sample(200)), method=method)
    fit.save(tmp_path / "calibration.json")
    assert json.loads((tmp_path / "calibration.json").read_text()) == fit.to_dict()
    for back in (
        Calibration.load(tmp_path / "calibration.json"),
        Calibration.from_dict(json.loads(json.dumps(fit.to_dict()))),
    ):
        assert back == fit
        assert [back.probability(score) for score in (-3, 0.1, 2)] == [fit.probability(score) for score in (-3, 0.1, 2)]


def test_a_reranking_shows_probabilities_in_the_order_of_the_scores() -> None:
    fit = fit_calibration(Given(), pairs_of(*sample(400)))
    texts = ["-1.5", "3.0", "0.25", "2.0", "900.0", "1000.0"]
    hits = rerank("a query", texts, Given(), calibration=fit)
    assert [hit.text for hit in hits] == ["1000.0", "900.0", "3.0", "2.0", "0.25", "-1.5"]
    assert [hit.score for hit in hits] == [fit.probability(float(hit.text)) for hit in hits]
    # Both round to 1.0, and the scores still decide.
    assert hits[0].score == hits[1].score == 1.0
    assert {hit.note["score_scale"] for hit in hits} == {"probability"}
    kept = rerank("a query", texts, Given(), calibration=fit, threshold=0.5)
    assert [hit.text for hit in kept] == [hit.text for hit in hits if hit.score >= 0.5]
    reranker = Reranker(PlainScorer(Given()), calibration=fit)
    assert reranker.score("a query", texts) == [fit.probability(float(text)) for text in texts]


def test_stages_of_a_cascade_are_calibrated_by_themselves() -> None:
    fit = fit_calibration(Given(), pairs_of(*sample(400)))
    plain = Reranker(PlainScorer(Given()), top_n=2)
    cascade = Cascade([("plain", plain), ("sure", Reranker(PlainScorer(Given()), calibration=fit))])
    ranked = cascade.rank("a query", [Candidate(None, text) for text in ("1.0", "-2.0", "2.0")])
    assert [item.note["rerank_scores"] for item in ranked] == [
        {"plain": 2.0, "sure": fit.probability(2.0)},
        {"plain": 1.0, "sure": fit.probability(1.0)},
    ]
    with pytest.raises(InvalidInputError, match=r"calibration .*with a Cascade"):
        rerank("a query", ["1.0"], cascade, calibration=fit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("q", "1", True), ("q", "2", True)], "2 of 2 pairs are relevant; expected some, but not all"),
        ([("q", "1", False)], "0 of 1 pairs"),
        ([], "0 of 0 pairs"),
        ([("q", "1", True), ("q", "1", False)], "from 1 to 1; expected finite ones that differ"),
        ([("q", "inf", True), ("q", "1", False)], "expected finite ones"),
        ([("q", "nan", True), ("q", "1", False)], "score of pair number 0 is NaN"),
        ([("q", "1", True), ("q", "2", False), ("q", "1.5", False)], "expected scores that rise with relevance"),
        ([("q", "1")], "expected .query, text, label."),
        ("pairs", "pairs is of type str"),
    ],
)
def test_pairs_that_give_no_calibration_are_refused(method: CalibrationMethod, pairs: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit_calibration(Given(), pairs, method=method)


def test_another_method_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"method is 'beta'; expected one of .*platt.*isotonic"):
        fit_calibration(Given(), [], method="beta")  # type: ignore[arg-type]


POINTS = {"method": "isotonic", "scores": [0.0, 1.0], "probabilities": [0.2, 0.4]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "calibration is of type list"),
        ({}, "expected .*method"),
        ({"method": "platt", "slope": 1, "code": "import os"}, "keys .*code"),
        ({"method": "beta"}, "method is 'beta'"),
        ({"method": "platt", "slope": 0}, "slope is 0"),
        ({"method": "platt", "slope": math.nan}, "slope is nan"),
        ({"method": "platt", "slope": "1"}, "slope is '1'"),
        ({"method": "platt", "slope": 1, "scores": [1.0]}, "expected slope and intercept alone"),
        (POINTS | {"scores": [1.0]}, "1 scores and 2 probabilities"),
        (POINTS | {"scores": [1.0, 1.0]}, "expected rising scores"),
        (POINTS | {"probabilities": [0.4, 0.2]}, "no falling probability"),
        (POINTS | {"probabilities": [0.4, 1.2]}, "above 1"),
        (POINTS | {"probabilities": [-0.1, 0.2]}, "below 0"),
        (POINTS | {"probabilities": "12"}, "probabilities is '12'"),
        (POINTS | {"slope": 2}, "expected points alone"),
        (POINTS | {"pairs": -1}, "pairs is -1"),
    ],
)
def test_other_data_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Calibration.from_dict(values)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04.", b"[1]", b"{}"])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="calibration"):
        Calibration.load(os.fspath(path))


@pytest.mark.parametrize("score", [math.nan, "1", None, True])
def test_a_probability_is_of_a_number(score: Any) -> None:
    with pytest.raises(InvalidInputError, match="score is"):
        Calibration("platt", slope=1.0).probability(score)
