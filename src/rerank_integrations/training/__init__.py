"""Fine-tuning a ColBERT model or a cross-encoder on pairs of query and passage."""

from __future__ import annotations

from rerank_integrations.training.colbert import train_colbert
from rerank_integrations.training.cross_encoder import train_cross_encoder
from rerank_integrations.training.fitting import Fitting
from rerank_integrations.training.pairs import Example, mine_negatives, read_pairs

__all__ = [
    "Example",
    "Fitting",
    "mine_negatives",
    "read_pairs",
    "train_colbert",
    "train_cross_encoder",
]
