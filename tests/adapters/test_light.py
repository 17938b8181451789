"""Adapters stand alone, and importing or constructing loads nothing heavy; every case runs in a fresh interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interpreter import MODULES, run

from rerank_integrations import ColBERTIndex

# Neither an empty list nor a component that is written down needs weights.
HARMLESS = {
    "langchain": "from langchain_core.load import dumps; dumps(cascade); cascade.compress_documents([], 'a query')",
    "llama-index": "cascade.to_json(); cascade.postprocess_nodes([], query_str='a query')",
}


def test_importing_and_constructing_load_no_weights(
    harness: Any, index: ColBERTIndex, colbert_dir: Path, cross_encoder_dir: Path
) -> None:
    code = f"""
import sys
import {MODULES[harness.extra]} as adapter
adapter.ColBERTRetriever(index={str(index.path)!r})
adapter.ColBERTRerank(model={str(colbert_dir)!r})
adapter.ColBERTRerank(index={str(index.path)!r})
adapter.CrossEncoderRerank(model={str(cross_encoder_dir)!r})
stages = [
    adapter.ColBERTRerank(model={str(colbert_dir)!r}, index={str(index.path)!r}, window=64, strict=True, scale="mean"),
    adapter.CrossEncoderRerank(model={str(cross_encoder_dir)!r}, window=64, stride=16, device="cpu", max_candidates=9),
]
cascade = adapter.CascadeRerank(stages=stages, top_n=3, time_budget=1.0)
{HARMLESS[harness.extra]}
print("torch" in sys.modules, "sentence_transformers" in sys.modules)
"""
    assert run(code) == "False False"
