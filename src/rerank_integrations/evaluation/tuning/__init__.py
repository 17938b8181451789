"""The settings of a ColBERT index that give the most quality within a time for a query."""

from __future__ import annotations

from rerank_integrations.evaluation.tuning.results import Setting, Trial, Tuning
from rerank_integrations.evaluation.tuning.sweep import tune

__all__ = ["Setting", "Trial", "Tuning", "tune"]
