"""``rerank-integrations rerank``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from command_line import Cli
from reranking_services import WordScorer, reranking_service

from rerank_integrations import ColBERTModel, CrossEncoderModel, rerank

TEXTS = ["The river rose.", "Net profit grew in 2024.", "A zip file is read."]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(TEXTS), "utf-8")
    return path


def test_colbert_puts_lines_in_the_order_of_the_library(cli: Cli, lines: Path, colbert_dir: Path) -> None:
    done = cli("rerank", "net profit", lines, "--model", colbert_dir, "--json")
    assert done.code == 0, done.err
    expected = rerank("net profit", TEXTS, ColBERTModel(str(colbert_dir)))
    assert [(hit["text"], hit["score"]) for hit in done.json()["hits"]] == [(hit.text, hit.score) for hit in expected]
    assert {hit["id"]: hit["text"] for hit in done.json()["hits"]} == dict(zip("135", TEXTS, strict=True))


def test_a_cross_encoder_puts_jsonl_in_the_order_of_the_library(
    cli: Cli, corpus: Path, cross_encoder_dir: Path
) -> None:
    options = ["--model", cross_encoder_dir, "--kind", "cross-encoder", "--top-n", "2"]
    done = cli("rerank", "net profit", corpus, *options, "--json")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    texts = [f"{record.get('title', '')} {record['text']}".strip() for record in records]
    expected = rerank("net profit", texts, CrossEncoderModel(str(cross_encoder_dir)), top_n=2)
    hits = done.json()["hits"]
    assert [(hit["text"], hit["score"]) for hit in hits] == [(hit.text, hit.score) for hit in expected]
    assert all(hit["id"] in "abc" for hit in hits)


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_standard_input_is_read(
    cli: Cli, colbert_dir: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    done = cli("rerank", "net profit", *arguments, "--model", colbert_dir)
    assert done.code == 0, done.err
    assert all(text in done.out for text in TEXTS)


def test_a_service_reranks(cli: Cli, lines: Path) -> None:
    for module in ("httpx", "tenacity"):
        pytest.importorskip(module, reason="a service needs the extra remote")
    with reranking_service() as service:
        done = cli("rerank", "net profit", lines, "--model", f"{service.address}/v1/rerank?version=1", "--json")
    assert done.code == 0, done.err
    assert done.json()["model"] == f"{service.address}/v1/rerank"
    assert [request.path for request in service.requests] == ["/v1/rerank?version=1"]
    scores = [hit["score"] for hit in done.json()["hits"]]
    assert scores == sorted(WordScorer().score("net profit", TEXTS), reverse=True)


def test_a_bad_line_is_named(cli: Cli, tmp_path: Path, colbert_dir: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "good"}\nnot json\n', "utf-8")
    done = cli("rerank", "net profit", path, "--model", colbert_dir)
    assert (done.code, done.out) == (1, "")
    assert f"{path}, line 2: not JSON" in done.err


def test_an_empty_query_is_an_error(cli: Cli, lines: Path, colbert_dir: Path) -> None:
    done = cli("rerank", "  ", lines, "--model", colbert_dir)
    assert done.code == 1
    assert done.err.startswith("error: query is")


def test_an_unknown_kind_is_wrong_usage(cli: Cli, lines: Path) -> None:
    assert cli("rerank", "q", lines, "--kind", "magic").code == 2


def test_a_missing_file_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    done = cli("rerank", "q", tmp_path / "nothing.txt")
    assert (done.code, done.out) == (2, "")
    assert "nothing.txt" in done.err
