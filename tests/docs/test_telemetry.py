"""The page about telemetry runs in an interpreter of its own, whose global provider it sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")

from guides import DOCS, read_blocks
from toy import child_env

PAGE = DOCS / "how-to" / "telemetry.md"


@pytest.mark.slow
def test_the_page_prints_the_spans_that_it_names(tmp_path: Path) -> None:
    (block,) = [block for block in read_blocks(PAGE) if block.language == "python"]
    done = subprocess.run(
        [sys.executable, "-c", block.code], cwd=tmp_path, capture_output=True, text=True, check=False, env=child_env()
    )
    assert done.returncode == 0, done.stderr
    spans, decoder, text = [], json.JSONDecoder(), done.stdout.strip()
    while text:
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:].lstrip()
    names = [span["name"] for span in spans]
    assert names == [
        "ColBERTModel.encode_documents",
        "ColBERTIndex.upsert",
        "ColBERTModel.encode_queries",
        "ColBERTIndex.search",
        "CrossEncoderModel.score",
        "Reranker.rank",
    ]
    page = PAGE.read_text("utf-8")
    shown = {name for span in spans for name in span["attributes"] if ".0." not in name}
    # Every name that the page explains is there.
    for name in ("input.value", "reranker.query", "embedding.model_name", "reranker.model_name", "reranker.top_k"):
        assert name in shown
        assert f"`{name}`" in page
