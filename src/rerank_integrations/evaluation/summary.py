"""Measurements as rows of figures: quality, latency by stage, size, and which differences may be chance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.measuring import STAGES, Measured
from rerank_integrations.evaluation.metrics import evaluate_run, means

PERCENTILES = (50, 95, 99)
_COMPARED_BY = "nDCG@10"


@dataclass(frozen=True)
class Row:
    """The figures of one pipeline.

    Parameters
    ----------
    quality
        Mean of each metric.
    ms
        Percentiles (50, 95, 99) of each stage's milliseconds a query, and of ``total``.
    p_value
        How probable so large a difference of nDCG@10 from the first row's is by chance, by a paired t-test over the
        queries; ``None`` for the first row, and where no query differs.
    """

    name: str
    quality: dict[str, float]
    ms: dict[str, tuple[float, ...]]
    build_s: float
    index_mb: float
    peak_mb: float
    per_s: dict[int, float]
    p_value: float | None


def summarize(results: Sequence[Measured], qrels: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Return a row for each measurement.

    Raises
    ------
    InvalidInputError
        If they are not of the queries of `qrels`.
    """
    rows: list[Row] = []
    first: Mapping[str, float] | None = None
    for result in results:
        name = str(result.pipeline["name"])
        if set(result.run) != set(qrels):
            raise InvalidInputError(f"the result of {name} is of other queries; expected those of the collection")
        values = evaluate_run(qrels, {query: by_rank(found) for query, found in result.run.items()})
        compared = values[_COMPARED_BY]
        chance = None if first is None else p_value(list(first.values()), [compared[query] for query in first])
        first = first or compared
        total = np.sum([result.ms[stage] for stage in STAGES], axis=0)
        ms = {stage: _percentiles(result.ms[stage]) for stage in STAGES} | {"total": _percentiles(total.tolist())}
        size = result.index_bytes / 1e6
        rows.append(Row(name, means(values), ms, result.build_s, size, result.peak_mb, result.per_s, chance))
    return rows


def by_rank(found: Sequence[str]) -> dict[str, float]:
    """Return scores that rank ids in this order, without ties."""
    return {key: float(-rank) for rank, key in enumerate(found)}


def _percentiles(ms: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(ms, PERCENTILES))


def p_value(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return how probable so large a difference is by chance, by a paired t-test; ``None`` where none differs."""
    from scipy.stats import ttest_rel

    if len(ours) < 2 or np.array_equal(ours, theirs):
        return None
    with warnings.catch_warnings():
        # Of two or three queries that all differ by as much it says so; it is what the result says, too.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_rel(ours, theirs).pvalue)
