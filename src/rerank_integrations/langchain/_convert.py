"""Hits and scores as LangChain documents."""

from __future__ import annotations

from langchain_core.documents import Document

from rerank_integrations.core.metadata import with_fields
from rerank_integrations.core.types import Hit


def hit_to_document(hit: Hit) -> Document:
    """Return a document with the passage's id, text and metadata, and the hit's score and rank."""
    return scored(Document(id=hit.id, page_content=hit.text, metadata=dict(hit.metadata)), hit.score, hit.rank)


def scored(document: Document, score: float, rank: int) -> Document:
    """Return a copy of `document` with ``relevance_score`` and ``relevance_rank`` in its metadata."""
    metadata = with_fields(document.metadata, relevance_score=score, relevance_rank=rank)
    return document.model_copy(update={"metadata": metadata})
