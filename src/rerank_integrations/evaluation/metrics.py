"""Metrics of ranked retrieval, as trec_eval computes them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from rerank_integrations.errors import MissingExtraError

# Names in reports, and those in ir-measures.
METRICS = {"recall@10": "R@10", "recall@100": "R@100", "nDCG@10": "nDCG@10", "MRR@10": "RR@10"}


def evaluate_run(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Compute each of `METRICS` for each query of `qrels`.

    Parameters
    ----------
    qrels
        As in `Dataset`.
    run
        By query's id, the score of each retrieved passage by its id. Higher is better; equal scores rank by descending
        id, as in trec_eval. A query without passages scores 0.

    Returns
    -------
    dict
        By name of the metric, its value from 0 to 1 by query's id.

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
    # Without ties, since the implementations behind ir-measures break them in opposite ways.
    ranked = {query: _distinct(scores) for query, scores in run.items()}
    for metric in ir_measures.iter_calc(list(measures), dict(qrels), ranked):
        if metric.query_id in qrels:
            values[measures[metric.measure]][metric.query_id] = float(metric.value)
    return values


def _distinct(scores: Mapping[str, float]) -> dict[str, float]:
    worst_first = sorted(scores, key=lambda key: (scores[key], key))
    return {key: float(rank) for rank, key in enumerate(worst_first)}


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return each metric's mean over its queries."""
    return {name: fmean(by_query.values()) for name, by_query in values.items()}
