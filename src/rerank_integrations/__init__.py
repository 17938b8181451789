"""Late-interaction retrieval and reranking for LangChain and LlamaIndex.

The names here need no framework. Importing this package loads neither torch nor a model.
"""

from rerank_integrations.core.explain import explain
from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex, export_colbert, import_colbert
from rerank_integrations.core.models import ColBERTModel, CrossEncoderModel, LoadedModel, loaded_models, unload_all
from rerank_integrations.core.reranking import Cascade, ColBERTScorer, Reranker, ThresholdFit, fit_threshold, rerank
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import (
    CheckpointError,
    IndexClosedError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexMovedError,
    IndexReadError,
    IndexReadOnlyError,
    IndexWriteError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
    RerankError,
    TextTooLongError,
    TruncationWarning,
)

__version__ = "0.1.0"

__all__ = [
    "Cascade",
    "CheckpointError",
    "ColBERTIndex",
    "ColBERTModel",
    "ColBERTScorer",
    "CrossEncoderModel",
    "Explanation",
    "Hit",
    "IndexClosedError",
    "IndexExistsError",
    "IndexFormatError",
    "IndexLockedError",
    "IndexMovedError",
    "IndexReadError",
    "IndexReadOnlyError",
    "IndexWriteError",
    "InvalidInputError",
    "LoadedModel",
    "MissingExtraError",
    "ModelMismatchError",
    "Passage",
    "RerankError",
    "Reranker",
    "TextTooLongError",
    "ThresholdFit",
    "TruncationWarning",
    "explain",
    "export_colbert",
    "fit_threshold",
    "import_colbert",
    "loaded_models",
    "rerank",
    "unload_all",
]
