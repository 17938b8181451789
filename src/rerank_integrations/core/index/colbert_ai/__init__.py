"""Index folders of colbert-ai 0.2 (and of RAGatouille, which uses it), read and written without colbert-ai."""

from rerank_integrations.core.index.colbert_ai.codec import ColbertAICodec, codebook, pack, quantile_buckets
from rerank_integrations.core.index.colbert_ai.collection import Collection, read_collection
from rerank_integrations.core.index.colbert_ai.read import Chunk, ColbertAIIndex, open_colbert_ai
from rerank_integrations.core.index.colbert_ai.write import MAX_CHUNK_PASSAGES, ColbertAIWriter

__all__ = [
    "MAX_CHUNK_PASSAGES",
    "Chunk",
    "ColbertAICodec",
    "ColbertAIIndex",
    "ColbertAIWriter",
    "Collection",
    "codebook",
    "open_colbert_ai",
    "pack",
    "quantile_buckets",
    "read_collection",
]
