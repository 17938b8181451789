"""Pipelines measured side by side on a test collection: quality, latency and memory."""

from __future__ import annotations

from rerank_integrations.evaluation.data import Dataset, load_dataset
from rerank_integrations.evaluation.evaluating import evaluate, read_results
from rerank_integrations.evaluation.measuring import Measured, measure
from rerank_integrations.evaluation.metrics import METRICS, evaluate_run
from rerank_integrations.evaluation.pipelines import Pipeline, Rerank, Retrieve, presets, read_pipelines
from rerank_integrations.evaluation.summary import Row, summarize
from rerank_integrations.evaluation.tuning import Setting, Trial, Tuning, tune

__all__ = [
    "METRICS",
    "Dataset",
    "Measured",
    "Pipeline",
    "Rerank",
    "Retrieve",
    "Row",
    "Setting",
    "Trial",
    "Tuning",
    "evaluate",
    "evaluate_run",
    "load_dataset",
    "measure",
    "presets",
    "read_pipelines",
    "read_results",
    "summarize",
    "tune",
]
