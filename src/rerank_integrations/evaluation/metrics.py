"""The measures of ranked retrieval, as trec_eval computes them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from rerank_integrations.errors import MissingExtraError

# The name in reports, and in ir-measures.
METRICS = {"recall@10": "R@10", "recall@100": "R@100", "nDCG@10": "nDCG@10", "MRR@10": "RR@10"}


def evaluate_run(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Compute each of `METRICS` for each query of `qrels`.

    Parameters
    ----------
    qrels
        As of `Dataset`.
    run
        By query's id, the score of each retrieved passage by its id: higher is better, and equal ones rank by falling
        id, as in trec_eval. A query without passages has 0.

    Returns
    -------
    dict
        By metric's name, its value by query's id, 0 to 1.

    Raises
    ------
    MissingExtraError
        Without ir-measures.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("evaluate", "evaluation") from error
    measures = {ir_measures.parse_measure(measure): name for name, measure in METRICS.items()}
    values = {name: dict.fromkeys(qrels, 0.0) for name in METRICS}
    # Without ties: the implementations that ir-measures takes break them in opposite ways.
    ranked = {query: _distinct(scores) for query, scores in run.items()}
    for found in ir_measures.iter_calc(list(measures), dict(qrels), ranked):
        if found.query_id in qrels:
            values[measures[found.measure]][found.query_id] = float(found.value)
    return values


def _distinct(scores: Mapping[str, float]) -> dict[str, float]:
    worst_first = sorted(scores, key=lambda key: (scores[key], key))
    return {key: float(place) for place, key in enumerate(worst_first)}


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each metric's mean over its queries."""
    return {name: fmean(by_query.values()) for name, by_query in values.items()}
