"""`fit_threshold`, compared with a trial of every threshold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from corpus import ENGLISH, TOPICS
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyEncoder

from rerank_integrations import (
    Cascade,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    InvalidInputError,
    Reranker,
    ThresholdFit,
    fit_threshold,
    rerank,
)


class Given:
    """Scorer by the number in a text."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(text) for text in texts]


SCORES = st.sampled_from([-math.inf, -1.0, 0.0, 0.1, 0.2, 0.3, 1.0, math.inf]) | st.floats(-2, 2)


def naive(pairs: list[tuple[float, bool]], precision: float) -> ThresholdFit | None:
    """Try every score as a threshold; return the highest with the best recall among those of the precision."""
    best = None
    relevant = sum(label for _, label in pairs)
    for threshold in sorted({score for score, _ in pairs}):
        kept = [label for score, label in pairs if score >= threshold]
        fit = ThresholdFit(threshold, sum(kept) / len(kept), sum(kept) / relevant, len(kept), relevant, len(pairs))
        if fit.precision >= precision and (best is None or fit.recall >= best.recall):
            best = fit
    return best


@given(
    pairs=st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=25),
    precision=st.sampled_from([0.1, 0.5, 2 / 3, 0.9, 1.0]) | st.floats(0.01, 1),
    queries=st.integers(1, 4),
)
def test_it_is_what_trying_every_threshold_finds(
    pairs: list[tuple[float, bool]], precision: float, queries: int
) -> None:
    rows = [(f"query {place % queries}", repr(score), label) for place, (score, label) in enumerate(pairs)]
    expected = naive(pairs, precision) if any(label for _, label in pairs) else None
    if expected is None:
        with pytest.raises(InvalidInputError, match=r"none of the|no threshold keeps"):
            fit_threshold(Given(), rows, precision=precision)
        return
    fit = fit_threshold(Given(), iter(rows), precision=precision)
    assert fit == expected
    # No lower threshold of that precision keeps more that is relevant, and the fit does what it says.
    kept = [label for score, label in pairs if score >= fit.threshold]
    assert (len(kept), sum(kept) / len(kept)) == (fit.kept, fit.precision)


def labelled() -> list[tuple[str, str, int]]:
    """Return per topic a query with one sentence of the topic and two of others."""
    sentences = [texts[0] for texts in TOPICS.values()]
    return [
        (text, other, int(step == 0))
        for place, text in enumerate(sentences)
        for step, other in enumerate([text, sentences[place - 1], sentences[place - 2]])
    ]


@pytest.mark.parametrize("kind", ["colbert", "mean", "window", "cross_encoder", "reranker"])
def test_the_threshold_does_in_a_reranking_what_it_says(
    colbert: ColBERTModel, cross_encoder: CrossEncoderModel, kind: str
) -> None:
    scorers: dict[str, Any] = {
        "colbert": colbert,
        "mean": ColBERTScorer(colbert, scale="mean"),
        "window": ColBERTScorer(colbert, window=8),
        "cross_encoder": cross_encoder,
        "reranker": Reranker(ColBERTScorer(colbert), top_n=1),
    }
    fit = fit_threshold(scorers[kind], labelled(), precision=0.3)
    used = ColBERTScorer(colbert) if kind == "reranker" else scorers[kind]
    kept = [
        label for query, text, label in labelled() for _ in rerank(query, [text], used, threshold=fit.threshold - 1e-4)
    ]
    assert len(kept) == pytest.approx(fit.kept, abs=1)
    assert (fit.relevant, fit.pairs) == (len(TOPICS), 3 * len(TOPICS))
    assert json.loads(json.dumps(fit.to_dict()))["threshold"] == fit.threshold


def test_labels_of_every_kind() -> None:
    rows = [("q", "3", np.bool_(True)), ("q", "2", np.int64(2)), ["q", "1", 0.5], ("q", "0", False), ("q", "-1", -1)]
    assert fit_threshold(Given(), rows, precision=np.float32(1)) == ThresholdFit(1.0, 1.0, 1.0, 3, 3, 5)  # type: ignore[arg-type]


def test_many_pairs_are_not_encoded_at_once() -> None:
    class Most(ToyEncoder):
        most = 0

        def encode_documents(self, texts: Any, show_progress: bool = False) -> list[Any]:
            self.most = max(self.most, len(texts))
            return super().encode_documents(texts)

    toy = Most()
    pairs = [(f"query {number % 500}", f"word {number}", number % 2) for number in range(5000)]
    assert fit_threshold(ColBERTScorer(toy), pairs, precision=0.1).pairs == 5000
    assert toy.most <= 1024


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "none of the 0 pairs"),
        ([("q", "1", 0)], "none of the 1 pairs"),
        ([("q", "1", 1), ("q", "1")], "number 1"),
        ([("q", "1", "yes")], "label"),
        ([("q", "1", None)], "label"),
        ([("q", "1", math.nan)], "label"),
        ([("q", 1, 1)], "text"),
        ([(" ", "1", 1)], "query"),
        ([(None, "1", 1)], "query"),
        ("text", "pairs is"),
        ({"q": 1}, "pairs is"),
        (None, "pairs is"),
        ([("q", "0", 1), ("q", "nan", 1)], "pair number 1 is NaN"),
    ],
)
def test_pairs_of_a_wrong_kind(pairs: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        fit_threshold(Given(), pairs)


@pytest.mark.parametrize("precision", [0, -0.1, 1.1, True, "0.9", None, math.nan])
def test_a_precision_of_a_wrong_kind(precision: Any) -> None:
    with pytest.raises(InvalidInputError, match="precision"):
        fit_threshold(Given(), [("q", "1", 1)], precision=precision)


def test_what_has_no_scores() -> None:
    cascade = Cascade([("only", Reranker(ColBERTScorer(ToyEncoder())))])
    for scorer in (cascade, object(), ENGLISH[0]):
        with pytest.raises(InvalidInputError, match="the scorer is of type"):
            fit_threshold(scorer, [("q", "1", 1)])
