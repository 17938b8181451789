"""Reranking: candidates in, the same candidates in a better order out, with notes on how each was scored."""

from rerank_integrations.core.reranking.calibration import Calibration, CalibrationMethod
from rerank_integrations.core.reranking.candidates import Candidate, Ranked, Scored
from rerank_integrations.core.reranking.cascade import Cascade, Stage
from rerank_integrations.core.reranking.colbert_scorer import ColBERTScorer
from rerank_integrations.core.reranking.fit_calibration import fit_calibration
from rerank_integrations.core.reranking.options import ColBERTRerankOptions, RerankOptions
from rerank_integrations.core.reranking.remote import RemoteReranker
from rerank_integrations.core.reranking.remote_shapes import RemoteApi
from rerank_integrations.core.reranking.rerank import rerank
from rerank_integrations.core.reranking.reranker import Reranker, as_candidate_scorer
from rerank_integrations.core.reranking.scorers import (
    CandidateScorer,
    CrossEncoderScorer,
    ListwiseCandidateScorer,
    PlainScorer,
)
from rerank_integrations.core.reranking.threshold import ThresholdFit, fit_threshold

__all__ = [
    "Calibration",
    "CalibrationMethod",
    "Candidate",
    "CandidateScorer",
    "Cascade",
    "ColBERTRerankOptions",
    "ColBERTScorer",
    "CrossEncoderScorer",
    "ListwiseCandidateScorer",
    "PlainScorer",
    "Ranked",
    "RemoteApi",
    "RemoteReranker",
    "RerankOptions",
    "Reranker",
    "Scored",
    "Stage",
    "ThresholdFit",
    "as_candidate_scorer",
    "fit_calibration",
    "fit_threshold",
    "rerank",
]
