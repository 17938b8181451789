"""Pipelines measured side by side on a test collection: quality, latency and memory."""

from __future__ import annotations

from rerank_integrations.evaluation.data import Dataset, load_dataset
from rerank_integrations.evaluation.evaluating import evaluate, read_judgements, read_results
from rerank_integrations.evaluation.measuring import Measured, measure
from rerank_integrations.evaluation.metrics import METRICS, evaluate_run
from rerank_integrations.evaluation.pipelines import Pipeline, Rerank, Retrieve, at_candidates, presets, read_pipelines
from rerank_integrations.evaluation.report import report_kept, summary_document, write_report
from rerank_integrations.evaluation.summary import Row, summarize

__all__ = [
    "METRICS",
    "Dataset",
    "Measured",
    "Pipeline",
    "Rerank",
    "Retrieve",
    "Row",
    "at_candidates",
    "evaluate",
    "evaluate_run",
    "load_dataset",
    "measure",
    "presets",
    "read_judgements",
    "read_pipelines",
    "read_results",
    "report_kept",
    "summarize",
    "summary_document",
    "write_report",
]
