"""Everything on disk: catalog, segments, search."""

from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.core.index.exporting import export_colbert
from rerank_integrations.core.index.fusion import HybridParts
from rerank_integrations.core.index.importing import import_colbert
from rerank_integrations.core.index.inspect import IndexStats, VerifyReport

__all__ = ["ColBERTIndex", "HybridParts", "IndexStats", "VerifyReport", "export_colbert", "import_colbert"]
