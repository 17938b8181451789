"""Fitting a score threshold to a wanted precision, from labelled pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from rerank_integrations.core.checks import is_number, require_texts
from rerank_integrations.core.reranking.candidates import Candidate
from rerank_integrations.core.reranking.reranker import as_candidate_scorer, require_query, score_in_groups
from rerank_integrations.core.reranking.scorers import CandidateScorer
from rerank_integrations.core.types import ListwiseScorer, Scorer
from rerank_integrations.errors import InvalidInputError

LabelledPair: TypeAlias = tuple[str, str, bool | int]


@dataclass(frozen=True)
class ThresholdFit:
    """A threshold, and its precision and recall on the pairs that it was fitted to.

    Parameters
    ----------
    threshold
        The lowest score that is kept (inclusive).
    precision
        Share of the kept pairs that are relevant.
    recall
        Share of the relevant pairs that are kept.
    kept, relevant, pairs
        The numbers of pairs that are kept, that are relevant, and in all.
    """

    threshold: float
    precision: float
    recall: float
    kept: int
    relevant: int
    pairs: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


def fit_threshold(
    scorer: Scorer | ListwiseScorer | CandidateScorer, pairs: Iterable[LabelledPair], *, precision: float = 0.9
) -> ThresholdFit:
    """Return the threshold that keeps most relevant pairs while at least `precision` of the kept pairs are relevant.

    Parameters
    ----------
    scorer
        A `ColBERTModel` or a `CrossEncoderModel`, a reranking component of either framework, a `ColBERTScorer`, or
        anything with ``score(query, texts)`` or ``score_list(query, texts)``. The threshold is on its scale.
    pairs
        (query, text, label), the label true or above 0 where the text answers the query. Give some hundred pairs, with
        texts that a retriever finds for the query: a threshold from random texts is too low.
    precision
        Above 0, at most 1.

    Returns
    -------
    ThresholdFit
        The score with the highest recall among those that reach the precision as a threshold; of several such, the
        highest, which keeps the fewest irrelevant pairs.

    Raises
    ------
    InvalidInputError
        For pairs of a wrong kind or none relevant, scores that are NaN, or a precision that no threshold reaches.
    """
    if not is_number(precision) or not 0 < precision <= 1:
        raise InvalidInputError(f"precision is {precision!r}; expected a number above 0, at most 1")
    scored = sorted(labelled_scores(scorer, pairs), reverse=True)
    relevant = sum(label for _, label in scored)
    if not relevant:
        raise InvalidInputError(f"none of the {len(scored)} pairs is relevant; expected some with a label above 0")
    fits = _fits(scored, relevant)
    precise = [fit for fit in fits if fit.precision >= precision]
    if not precise:
        best = max(fits, key=lambda fit: fit.precision)
        raise InvalidInputError(
            f"no threshold keeps a precision of {precision:g} on {len(scored)} pairs; the best is "
            f"{best.precision:.3f}, at {best.threshold:.6g}"
        )
    return max(precise, key=lambda fit: (fit.recall, -fit.kept))


def labelled_scores(
    scorer: Scorer | ListwiseScorer | CandidateScorer, pairs: Iterable[LabelledPair]
) -> list[tuple[float, bool]]:
    """Return the score of each (query, text, label), and whether the label is above 0; the texts of a query together.

    Raises
    ------
    InvalidInputError
        For pairs of a wrong kind, or a score that is NaN.
    """
    if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"pairs is of type {type(pairs).__name__}; expected (query, text, label) tuples")
    rows = [_row(number, pair) for number, pair in enumerate(pairs)]
    return list(zip(_scores(scorer, rows), (label for _, _, label in rows), strict=True))


def _row(number: int, pair: LabelledPair) -> tuple[str, str, bool]:
    if not isinstance(pair, tuple | list) or len(pair) != 3:
        raise InvalidInputError(f"pair number {number} is {pair!r}; expected (query, text, label)")
    query, text, label = pair
    require_query(query)
    require_texts([text], f"text of pair {number}, text")
    try:
        value = float(label)
    except (TypeError, ValueError) as error:
        raise _bad_label(number, label) from error
    if math.isnan(value):
        raise _bad_label(number, label)
    return query, text, value > 0


def _bad_label(number: int, label: object) -> InvalidInputError:
    return InvalidInputError(f"the label of pair number {number} is {label!r}; expected a number or a bool")


def _scores(scorer: Scorer | ListwiseScorer | CandidateScorer, rows: list[tuple[str, str, bool]]) -> list[float]:
    numbers_of: dict[str, list[int]] = {}
    for number, (query, _, _) in enumerate(rows):
        numbers_of.setdefault(query, []).append(number)
    candidates = [[Candidate(None, rows[number][1]) for number in group] for group in numbers_of.values()]
    scores = [0.0] * len(rows)
    groups = score_in_groups(as_candidate_scorer(scorer), list(numbers_of), candidates)
    for numbers, group in zip(numbers_of.values(), groups, strict=True):
        for number, scored in zip(numbers, group, strict=True):
            if math.isnan(scored.score):
                raise InvalidInputError(f"the score of pair number {number} is NaN; expected a number")
            scores[number] = scored.score
    return scores


def _fits(scored: list[tuple[float, bool]], relevant: int) -> list[ThresholdFit]:
    """Return one fit per different score, from the highest down; `scored` is sorted so."""
    fits: list[ThresholdFit] = []
    relevant_kept = 0
    for count, (score, label) in enumerate(scored, start=1):
        relevant_kept += label
        # Equal scores are kept or dropped together.
        if count == len(scored) or scored[count][0] != score:
            fits.append(
                ThresholdFit(score, relevant_kept / count, relevant_kept / relevant, count, relevant, len(scored))
            )
    return fits
