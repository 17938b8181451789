"""The statements of docs/tutorials/llama_index.md and docs/how-to/llama_index.md are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guides import run_guides
from llama_index.core.schema import MetadataMode


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, cross_encoder_dir: Path) -> Any:
    return run_guides(
        ["tutorials/llama_index.md", "how-to/llama_index.md"], tmp_path_factory.mktemp("guide"), cross_encoder_dir
    )


def ids(nodes: Any) -> list[str]:
    return [item.node_id for item in nodes]


def test_retrieval(guide: Any) -> None:
    assert sorted(ids(guide["found"])) == ["tar", "zip"]
    assert all(type(item.score) is float for item in guide["found"])
    assert sorted(ids(guide["recent_nodes"])) == ["csv", "zip"]


def test_reranking(guide: Any) -> None:
    assert sorted(ids(guide["response"].source_nodes)) == ["tar", "zip"]
    (best,) = guide["best"]
    before = {item.node_id: item.score for item in guide["found"]}
    assert best.metadata["retrieval_score"] == before[best.node_id]
    assert "retrieval_score" not in best.node.get_content(MetadataMode.LLM)
    assert all("retrieval_score" not in item.metadata for item in guide["found"])


def test_windows_and_cascade(guide: Any) -> None:
    assert "the archive was opened" in guide["passage"]
    assert len(guide["passage"]) < len(guide["text_of_a_log"]) / 4
    assert guide["first"].node_id in ids(guide["found"])
    assert set(guide["first"].metadata["rerank_scores"]) == {"ColBERTRerank", "CrossEncoderRerank"}
    assert "rerank_stopped" not in guide["first"].metadata


def test_async_and_saving(guide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guide["folder"])
    assert [ids(answer.source_nodes) for answer in guide["answers"]] == [
        ids(guide["engine"].query(question).source_nodes) for question in guide["questions"]
    ]
    assert guide["again"].to_json() == guide["text"]


def test_the_vector_store_and_ingestion(guide: Any) -> None:
    assert [item.text for item in guide["in_the_store"]] == ["gzip reads and writes one compressed file."]
    assert sorted(item.text for item in guide["prices"]) == [
        "The price is 20 euros.",
        "gzip reads and writes one compressed file.",
    ]
    assert sorted(ids(guide["by_hyde"].source_nodes)) == ["tar", "zip"]


def test_the_managed_index(guide: Any) -> None:
    assert guide["changed"] == [True]
    assert guide["stored_documents"] == ["csv", "tar"]
    assert [item.node.ref_doc_id for item in guide["answer"].source_nodes] == ["csv"]
