"""The models: everything that uses sentence-transformers to load, encode, score and explain."""

from rerank_integrations.core.explanations import Explanation, TokenMatch
from rerank_integrations.core.models.checkpoints.options import Backend, DType, ModelKind
from rerank_integrations.core.models.colbert import ColBERTModel, as_colbert_model
from rerank_integrations.core.models.cross_encoder import (
    Activation,
    CrossEncoderModel,
    RankedDocument,
    as_cross_encoder_model,
)
from rerank_integrations.core.models.pool import LoadedModel, loaded_models, unload_all
from rerank_integrations.core.types import TokenEncoder

__all__ = [
    "Activation",
    "Backend",
    "ColBERTModel",
    "CrossEncoderModel",
    "DType",
    "Explanation",
    "LoadedModel",
    "ModelKind",
    "RankedDocument",
    "TokenEncoder",
    "TokenMatch",
    "as_colbert_model",
    "as_cross_encoder_model",
    "loaded_models",
    "unload_all",
]
