"""LlamaIndex components over the core; needs ``llama-index-core`` alone."""

from rerank_integrations.errors import MissingExtraError

try:
    import llama_index.core as _llama_index_core  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name not in {"llama_index", "llama_index.core"}:
        raise
    raise MissingExtraError("llama-index", "rerank_integrations.llama_index") from _error

from rerank_integrations.llama_index._nodes import node_to_passage
from rerank_integrations.llama_index.managed_index import ColBERTManagedIndex
from rerank_integrations.llama_index.rerank import CascadeRerank, ColBERTRerank, CrossEncoderRerank
from rerank_integrations.llama_index.retriever import ColBERTRetriever
from rerank_integrations.llama_index.vector_store import ColBERTVectorStore

__all__ = [
    "CascadeRerank",
    "ColBERTManagedIndex",
    "ColBERTRerank",
    "ColBERTRetriever",
    "ColBERTVectorStore",
    "CrossEncoderRerank",
    "node_to_passage",
]
