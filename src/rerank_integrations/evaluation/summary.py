"""Summaries of measurements: quality, latency by stage, size, and the significance of differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.measuring import STAGES, Measured
from rerank_integrations.evaluation.metrics import evaluate_run, means
from rerank_integrations.evaluation.pipelines import PipelineRecord

PERCENTILES = (50, 95, 99)
COMPARED_BY = "nDCG@10"
# A difference whose p-value is at least this may be due to chance.
CHANCE = 0.05


@dataclass(frozen=True)
class Row:
    """The figures of one pipeline.

    Parameters
    ----------
    quality
        Mean of each metric.
    ms
        Percentiles (50, 95, 99) of the milliseconds per query, by stage and for the ``total``.
    p_value
        The probability that chance makes so large a difference of nDCG@10 from the first row's, by a paired t-test over
        the queries; ``None`` for the first row, and where all queries differ by the same amount.
    build_s, index_mb
        ``None`` if not known.
    gpu_mb, compressed
        As in `Measured`.
    """

    name: str
    quality: dict[str, float]
    ms: dict[str, tuple[float, ...]]
    build_s: float | None
    index_mb: float | None
    peak_mb: float
    per_s: dict[int, float]
    p_value: float | None
    gpu_mb: float | None = None
    compressed: dict[str, bool] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, with a remark if an index stores float16 although the pipeline sets fewer bits."""
        return self.name if all(self.compressed.values()) else f"{self.name} (not compressed)"

    @property
    def may_be_chance(self) -> bool:
        """True if chance often makes such a difference from the first row's nDCG@10."""
        return self.p_value is not None and self.p_value >= CHANCE


NOT_COMPRESSED = (
    "Not compressed: an index holds float16 vectors and is searched exactly until it has 4,096 passages or 131,072 "
    "tokens, whatever its bits. So rows that differ in bits alone are one index here, and tell nothing of bits."
)


def summarize(results: Sequence[Measured], qrels: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Return one row per measurement.

    Raises
    ------
    InvalidInputError
        If a measurement has other queries than `qrels`.
    """
    rows: list[Row] = []
    first: Mapping[str, float] | None = None
    for result in results:
        name = str(result.pipeline["name"])
        values = values_of(result, qrels)
        compared = values[COMPARED_BY]
        chance = None if first is None else p_value(list(first.values()), [compared[query] for query in first])
        first = first or compared
        total = np.sum([result.ms[stage] for stage in STAGES], axis=0)
        ms = {stage: _percentiles(result.ms[stage]) for stage in STAGES} | {"total": _percentiles(total.tolist())}
        size = None if result.index_bytes is None else result.index_bytes / 1e6
        costs = (result.build_s, size, result.peak_mb, result.per_s)
        rows.append(Row(name, means(values), ms, *costs, chance, result.gpu_mb, result.compressed))
    return rows


def values_of(result: Measured, qrels: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    """Return the metrics of a measurement, as `evaluate_run` computes them.

    Raises
    ------
    InvalidInputError
        If it has other queries than `qrels`.
    """
    if set(result.run) != set(qrels):
        name = result.pipeline["name"]
        raise InvalidInputError(f"the result of {name} is of other queries; expected those of the collection")
    return evaluate_run(qrels, {query: by_rank(ids) for query, ids in result.run.items()})


def by_rank(ids: Sequence[str]) -> dict[str, float]:
    """Return scores without ties that rank `ids` in their order."""
    return {key: float(-rank) for rank, key in enumerate(ids)}


def _percentiles(ms: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(ms, PERCENTILES))


def p_value(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the probability that chance makes so large a mean difference, by a paired t-test over the same queries.

    ``None`` where all queries differ by the same amount (by 0, or there is only one query): the test needs differences
    that vary.
    """
    from scipy.stats import ttest_rel

    if np.ptp(np.subtract(ours, theirs)) < 1e-12:
        return None
    return float(ttest_rel(ours, theirs).pvalue)


@dataclass(frozen=True)
class Series:
    """Rows of pipelines that differ only in the number of candidates of the first reranker.

    Parameters
    ----------
    rows
        By number of candidates, ascending; 0 is the retriever alone, if that was measured.
    """

    name: str
    rows: dict[int, Row]


def series_by_candidates(results: Sequence[Measured], rows: Sequence[Row]) -> list[Series]:
    """Return one series for each group of two or more pipelines that differ only in the number of candidates."""
    alone: dict[str, Row] = {}
    groups: dict[str, dict[int, Row]] = {}
    for result, row in zip(results, rows, strict=True):
        stages = result.pipeline["rerank"]
        if stages:
            # The first of two equal pipelines with different names.
            groups.setdefault(_key_without_candidates(result.pipeline), {}).setdefault(stages[0]["candidates"], row)
        else:
            alone.setdefault(_retriever_key(result.pipeline), row)
    series = []
    for key, group in groups.items():
        if len(group) > 1:
            retriever = json.loads(key)[0]
            before = {0: alone[retriever]} if retriever in alone else {}
            series.append(Series(_series_name(group), before | dict(sorted(group.items()))))
    return series


def _retriever_key(pipeline: PipelineRecord) -> str:
    # Without the depth, since more candidates need a deeper list.
    return json.dumps({**pipeline["retrieve"], "depth": None}, sort_keys=True)


def _key_without_candidates(pipeline: PipelineRecord) -> str:
    first, *later = pipeline["rerank"]
    return json.dumps([_retriever_key(pipeline), {**first, "candidates": None}, *later], sort_keys=True)


def _series_name(group: Mapping[int, Row]) -> str:
    bases = {row.name.removesuffix(f"@{count}") for count, row in group.items()}
    return bases.pop() if len(bases) == 1 else next(iter(group.values())).name
