"""The function `fit_calibration`: probabilities of relevance from labelled pairs, by scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rerank_integrations.core.reranking.calibration import Calibration, CalibrationMethod
from rerank_integrations.core.reranking.scorers import CandidateScorer
from rerank_integrations.core.reranking.threshold import LabelledPair, labelled_scores
from rerank_integrations.core.types import ListwiseScorer, Scorer
from rerank_integrations.errors import InvalidInputError

Doubles: TypeAlias = "npt.NDArray[np.float64]"


def fit_calibration(
    scorer: Scorer | ListwiseScorer | CandidateScorer,
    pairs: Iterable[LabelledPair],
    *,
    method: CalibrationMethod = "platt",
) -> Calibration:
    """Return the function from a scorer's scores to the probability that a text is relevant.

    Parameters
    ----------
    scorer
        As for `fit_threshold`. A probability is of this scorer's scale, so rerank with the same one: logits of a
        cross-encoder (``activation="raw"``), which are not rounded, and of a ColBERT the mean (``scale="mean"``),
        which compares across queries.
    pairs
        (query, text, label), as for `fit_threshold`, some relevant and some not. The share of relevant ones should be
        that of the texts which will be scored: a probability from pairs that are half relevant is too high for
        candidates of which few are.
    method
        ``"platt"``: a sigmoid of two numbers, which some hundred pairs are enough for. ``"isotonic"``: any
        non-decreasing function, which follows scores of any shape but takes some thousand pairs, and gives 0 and 1 at
        the ends.

    Raises
    ------
    InvalidInputError
        For pairs of a wrong kind, all relevant or none; scores that are not finite, are all equal, or do not rise with
        relevance.

    References
    ----------
    Platt, Probabilistic outputs for support vector machines, 1999: labels are replaced by (n + 1) / (n + 2) and
    1 / (m + 2), for n relevant pairs and m others. Zadrozny and Elkan, KDD 2002, for isotonic regression.
    """
    if method not in get_args(CalibrationMethod):
        raise InvalidInputError(f"method is {method!r}; expected one of {get_args(CalibrationMethod)}")
    scored = labelled_scores(scorer, pairs)
    scores = np.array([score for score, _ in scored], dtype=np.float64)
    labels = np.array([label for _, label in scored], dtype=np.float64)
    relevant = int(labels.sum())
    if not 0 < relevant < len(labels):
        raise InvalidInputError(f"{relevant} of {len(labels)} pairs are relevant; expected some, but not all")
    if not np.isfinite(scores).all() or scores.min() == scores.max():
        raise InvalidInputError(
            f"the scores are from {scores.min():g} to {scores.max():g}; expected finite ones that differ"
        )
    fitted = _platt(scores, labels) if method == "platt" else _isotonic(scores, labels)
    errors = np.array([fitted.probability(float(score)) for score in scores]) - labels
    return replace(fitted, pairs=len(labels), relevant=relevant, brier=float(np.mean(errors**2)))


def _platt(scores: Doubles, labels: Doubles) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    relevant, others = labels.sum(), (1 - labels).sum()
    targets = np.where(labels > 0, (relevant + 1) / (relevant + 2), 1 / (others + 2))
    # A target between 0 and 1 is a pair of either label with that weight. Scores are put on one scale for the solver.
    centre, spread = scores.mean(), scores.std()
    standard = ((scores - centre) / spread)[:, None]
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000)
    model.fit(
        np.concatenate([standard, standard]),
        np.concatenate([np.ones_like(labels), np.zeros_like(labels)]),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    slope = float(model.coef_[0, 0]) / spread
    if slope <= 0:
        raise _not_rising()
    return Calibration("platt", slope=slope, intercept=float(model.intercept_[0]) - slope * centre)


def _isotonic(scores: Doubles, labels: Doubles) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
    points, levels = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
    if levels[0] == levels[-1]:
        raise _not_rising()
    return Calibration("isotonic", scores=tuple(points), probabilities=tuple(levels))


def _not_rising() -> InvalidInputError:
    return InvalidInputError(
        "the scores of relevant pairs are no higher than those of the others; expected scores that rise with relevance"
    )
