"""Pipelines measured side by side on a test collection: quality, latency and memory."""

from __future__ import annotations

from rerank_integrations.evaluation.bm25_weight import WeightFit, fit_bm25_weight
from rerank_integrations.evaluation.comparing import Comparison, QueryChange, RankedPassage, ShownPassage, compare
from rerank_integrations.evaluation.data import Dataset, load_dataset
from rerank_integrations.evaluation.evaluating import (
    evaluate,
    keep_result,
    read_judgements,
    read_result,
    read_results,
)
from rerank_integrations.evaluation.measuring import Measured, measure
from rerank_integrations.evaluation.metrics import METRICS, evaluate_run
from rerank_integrations.evaluation.pipelines import Pipeline, Rerank, Retrieve, at_candidates, presets, read_pipelines
from rerank_integrations.evaluation.report import report_kept, summary_document, write_report
from rerank_integrations.evaluation.retrievers import measure_retriever
from rerank_integrations.evaluation.summary import Row, summarize
from rerank_integrations.evaluation.tuning import Setting, Trial, Tuning, tune

__all__ = [
    "METRICS",
    "Comparison",
    "Dataset",
    "Measured",
    "Pipeline",
    "QueryChange",
    "RankedPassage",
    "Rerank",
    "Retrieve",
    "Row",
    "Setting",
    "ShownPassage",
    "Trial",
    "Tuning",
    "WeightFit",
    "at_candidates",
    "compare",
    "evaluate",
    "evaluate_run",
    "fit_bm25_weight",
    "keep_result",
    "load_dataset",
    "measure",
    "measure_retriever",
    "presets",
    "read_judgements",
    "read_pipelines",
    "read_result",
    "read_results",
    "report_kept",
    "summarize",
    "summary_document",
    "tune",
    "write_report",
]
