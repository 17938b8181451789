"""A score threshold for a wanted precision, from labelled pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rerank_integrations.core.checks import is_number, require_texts
from rerank_integrations.core.reranking.candidates import Candidate
from rerank_integrations.core.reranking.reranker import as_candidate_scorer, require_query, score_in_groups
from rerank_integrations.errors import InvalidInputError


@dataclass(frozen=True)
class ThresholdFit:
    """A threshold, and what it does on the pairs that it was fitted to.

    Parameters
    ----------
    threshold
        Pairs of at least this score are kept (inclusive).
    precision
        Share of the kept pairs that are relevant.
    recall
        Share of the relevant pairs that are kept.
    kept, relevant, pairs
        How many pairs are kept, are relevant, were given.
    """

    threshold: float
    precision: float
    recall: float
    kept: int
    relevant: int
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


def fit_threshold(scorer: Any, pairs: Iterable[tuple[str, str, bool | int]], *, precision: float = 0.9) -> ThresholdFit:
    """Return the threshold that keeps most relevant pairs while at least `precision` of what is kept is relevant.

    Parameters
    ----------
    scorer
        A `ColBERTModel` or a `CrossEncoderModel`, a reranking component of either framework, a
        `core.reranking.ColBERTScorer`, or anything with ``score(query, texts)``: on its scale the threshold holds.
    pairs
        (query, text, label), the label true or above 0 where the text answers the query. Some hundred pairs, with
        texts that a retriever finds for the query; a threshold that random texts gave is too low.
    precision
        Above 0, at most 1.

    Returns
    -------
    ThresholdFit
        Of all scores that occur, as thresholds with that precision, the one of highest recall; of several such the
        highest, which keeps fewest of the others.

    Raises
    ------
    InvalidInputError
        For pairs of a wrong kind or none relevant, scores that are NaN, or a precision that no threshold reaches.
    """
    if not is_number(precision) or not 0 < precision <= 1:
        raise InvalidInputError(f"precision is {precision!r}; expected a number above 0, at most 1")
    if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"pairs is of type {type(pairs).__name__}; expected (query, text, label) tuples")
    rows = [_row(place, pair) for place, pair in enumerate(pairs)]
    relevant = sum(label for _, _, label in rows)
    if not relevant:
        raise InvalidInputError(f"none of the {len(rows)} pairs is relevant; expected some with a label above 0")
    scored = sorted(zip(_scores(scorer, rows), (label for _, _, label in rows), strict=True), reverse=True)
    fits = _fits(scored, relevant)
    good = [fit for fit in fits if fit.precision >= precision]
    if not good:
        best = max(fits, key=lambda fit: fit.precision)
        raise InvalidInputError(
            f"no threshold keeps a precision of {precision:g} on {len(rows)} pairs; the best is {best.precision:.3f}, "
            f"at {best.threshold:.6g}"
        )
    return max(good, key=lambda fit: (fit.recall, -fit.kept))


def _row(place: int, pair: Any) -> tuple[str, str, bool]:
    if not isinstance(pair, tuple | list) or len(pair) != 3:
        raise InvalidInputError(f"pair number {place} is {pair!r}; expected (query, text, label)")
    query, text, label = pair
    require_query(query)
    require_texts([text], f"text of pair {place}, text")
    try:
        number = float(label)
    except (TypeError, ValueError) as error:
        raise _bad_label(place, label) from error
    if math.isnan(number):
        raise _bad_label(place, label)
    return query, text, number > 0


def _bad_label(place: int, label: Any) -> InvalidInputError:
    return InvalidInputError(f"the label of pair number {place} is {label!r}; expected a number or a bool")


def _scores(scorer: Any, rows: list[tuple[str, str, bool]]) -> list[float]:
    ready = as_candidate_scorer(scorer)
    places: dict[str, list[int]] = {}
    for place, (query, _, _) in enumerate(rows):
        places.setdefault(query, []).append(place)
    given = [[Candidate(None, rows[place][1]) for place in group] for group in places.values()]
    scores = [0.0] * len(rows)
    for group, scored in zip(places.values(), score_in_groups(ready, list(places), given), strict=True):
        for place, one in zip(group, scored, strict=True):
            if math.isnan(one.score):
                raise InvalidInputError(f"the score of pair number {place} is NaN; expected a number")
            scores[place] = one.score
    return scores


def _fits(scored: list[tuple[float, bool]], relevant: int) -> list[ThresholdFit]:
    """Return a fit for each score that occurs, from the highest down; `scored` falls."""
    fits: list[ThresholdFit] = []
    good = 0
    for kept, (score, label) in enumerate(scored, start=1):
        good += label
        # Equal scores are kept or left together.
        if kept == len(scored) or scored[kept][0] != score:
            fits.append(ThresholdFit(score, good / kept, good / relevant, kept, relevant, len(scored)))
    return fits
