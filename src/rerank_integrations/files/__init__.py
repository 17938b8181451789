"""Files and folders as passages: PDF, HTML, DOCX, Markdown, text, JSONL and CSV."""

from __future__ import annotations

from rerank_integrations.files.reading import ExtractedText, extract_text, read_files

__all__ = ["ExtractedText", "extract_text", "read_files"]
