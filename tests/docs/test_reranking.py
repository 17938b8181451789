"""Tests of the claims in docs/how-to/reranking.md and docs/reference/notes.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from guides import DOCS, run_guide

from rerank_integrations.core.reranking.metadata import RERANKING_KEYS


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, cross_encoder_dir: Path) -> Any:
    names = run_guide("how-to/reranking.md", tmp_path_factory.mktemp("guide"), cross_encoder_dir)
    yield names
    names["index"].close()


def test_stored_vectors(guide: Any) -> None:
    assert {hit.id for hit in guide["by_colbert"]} == {"zip", "tar"}
    assert len(guide["by_cross_encoder"]) == 2
    assert [hit.note["vectors_from"] for hit in guide["stored"]] == ["stored"] * 3
    assert sorted(hit.note["vectors_from"] for hit in guide["mixed"]) == ["encoded", "stored", "stored", "stored"]


def test_windows(guide: Any) -> None:
    assert guide["passages"][0].text in guide["best_window"]
    assert len(guide["best_window"]) < 300


def test_thresholds(guide: Any) -> None:
    assert (guide["fit"].precision, guide["fit"].recall) == (1.0, 1.0)
    assert "csv" not in {hit.id for hit in guide["kept"]}
    assert "zip" in {hit.id for hit in guide["kept"]}


def test_probabilities(guide: Any) -> None:
    assert guide["probable"][0].id == "zip"
    assert all(0.5 <= hit.score <= 1 and hit.note["score_scale"] == "probability" for hit in guide["probable"])


def test_instructions(guide: Any) -> None:
    by_task, by_year = ({hit.id: hit.score for hit in guide[name]} for name in ("by_task", "by_year"))
    assert set(by_task) == set(by_year) == {"zip", "csv", "tar"}
    assert by_task != by_year


def test_cascades(guide: Any) -> None:
    assert guide["answer"].note["rerank_stage"] == "cross-encoder"
    assert list(guide["answer"].note["rerank_scores"]) == ["colbert", "cross-encoder"]
    assert "rerank_stopped" not in guide["answer"].note


def test_the_table_has_every_key(guide: Any) -> None:
    text = (DOCS / "reference" / "notes.md").read_text(encoding="utf-8")
    table = text[text.index("# Notes") : text.index("## Scales")]
    named = [key for row in re.findall(r"^\|(.*?)\|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)]
    assert named == list(RERANKING_KEYS)
