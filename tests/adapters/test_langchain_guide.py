"""The statements of docs/tutorials/langchain.md and docs/how-to/langchain.md are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guides import run_guides


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, cross_encoder_dir: Path) -> Any:
    return run_guides(
        ["tutorials/langchain.md", "how-to/langchain.md"], tmp_path_factory.mktemp("guide"), cross_encoder_dir
    )


def ids(documents: Any) -> list[str]:
    return [document.id for document in documents]


def test_retrieval(guide: Any) -> None:
    assert sorted(ids(guide["found"])) == ["tar", "zip"]
    assert [sorted(document.metadata) for document in guide["found"]] == [
        ["relevance_rank", "relevance_score", "year"]
    ] * 2
    assert ids(guide["one"]) == ids(guide["found"])[:1]
    assert sorted(ids(guide["recent"])) == ["csv", "zip"]
    assert guide["none_found"] == []


def test_reranking(guide: Any) -> None:
    assert len(guide["best"]) == 1
    assert all("previous_relevance_score" in document.metadata for document in guide["best"])
    assert all(document.metadata["relevance_score"] >= 2.0 for document in guide["kept"])
    assert sorted(ids(guide["best_two"])) == ["tar", "zip"]
    assert all(set(document.metadata) == {"year"} for document in guide["documents"])


def test_windows_and_cascade(guide: Any) -> None:
    assert "the archive was opened" in guide["passage"]
    assert len(guide["passage"]) < len(guide["long"].page_content) / 4
    assert guide["first"].id in ids(guide["documents"])
    assert set(guide["first"].metadata["rerank_scores"]) == {"ColBERTRerank", "CrossEncoderRerank"}
    assert "rerank_stopped" not in guide["first"].metadata


def test_several_at_once(guide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guide["folder"])
    assert [len(documents) for documents in guide["each"]] == [2, 2, 0]
    assert [ids(documents) for documents in guide["each"]] == [
        ids(guide["two_stages"].invoke(question, k=3)) for question in guide["questions"]
    ]


def test_async_and_saving(guide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guide["folder"])
    assert [ids(answer) for answer in guide["answers"]] == [
        ids(guide["two_stages"].invoke(question)) for question in guide["questions"]
    ]
    assert guide["dumps"](guide["again"]) == guide["text"]
