"""``mcp``: what it refuses before it listens, and a server that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import Cli
from mcp import Client, StdioServerParameters
from toy import child_env

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage


def test_what_cannot_be_served_is_refused(cli: Cli, tmp_path: Path, index_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("short", "utf-8")
    for arguments, message in (
        ([], "neither indexes nor rerankers"),
        ([tmp_path / "nothing"], "is not an index"),
        ([index_path, "--port", "8001"], "--port is given without --http"),
        ([index_path, "--host", "127.0.0.1"], "--host is given without --http"),
        ([index_path, "--token-file", token], "--token-file is given without --http"),
        ([index_path, "--allow-host", "a"], "--allow-host is given without --http"),
        ([index_path, "--http", "--token-file", token], "the setting token"),
        ([index_path, "--http", "--host", "0.0.0.0"], "anybody who reaches 0.0.0.0 could store and remove passages"),
        ([index_path, "--http", "--allow-host", "http://a"], "the allowed host is 'http://a'"),
    ):
        done = cli("mcp", *arguments)
        assert (done.code, message in done.err, done.out) == (1, True, ""), done.err


@pytest.mark.slow
async def test_an_index_and_a_reranker(tmp_path: Path, colbert_dir: Path, cross_encoder_dir: Path) -> None:
    texts = ["the net profit grew", "the river rose after the rain"]
    with ColBERTIndex.create(tmp_path / "index", ColBERTModel(colbert_dir)) as index:
        index.upsert(Passage(str(place), text) for place, text in enumerate(texts))
        hits = index.search("net profit")
    program = ["-c", "from rerank_integrations.cli import main; main()", "mcp", f"docs={tmp_path / 'index'}"]
    # The models are loaded meanwhile.
    environment = {**child_env(), "RERANK_INTEGRATIONS_SERVER_TIMEOUT": "600"}
    options = ["--model", str(colbert_dir), "--reranker", f"ce={cross_encoder_dir}", "--about", "reports of a company"]
    read_only = StdioServerParameters(command=sys.executable, args=[*program, *options, "--read-only"], env=environment)
    writing = StdioServerParameters(command=sys.executable, args=[*program, *options], env=environment)
    # The one that only reads leaves the index to the other.
    async with Client(read_only) as reader, Client(writing) as writer:
        assert "reports of a company" in (reader.instructions or "")
        names = [tool.name for tool in (await reader.list_tools()).tools]
        assert names == ["search", "get", "rerank"]
        result = await reader.call_tool("search", {"query": "net profit"})
        assert isinstance(result.structured_content, dict)
        found = [(hit["id"], hit["score"]) for hit in result.structured_content["hits"]]
        assert found == [(hit.id, pytest.approx(hit.score)) for hit in hits]
        ranked = await reader.call_tool("rerank", {"query": "net profit", "documents": texts})
        assert isinstance(ranked.structured_content, dict)
        scores = CrossEncoderModel(cross_encoder_dir).score("net profit", texts)
        for item in ranked.structured_content["ranking"]:
            assert item["score"] == pytest.approx(scores[item["position"]], abs=1e-3)
        added = await writer.call_tool("add", {"passages": [{"id": "new", "text": "profit fell"}]})
        assert not added.is_error
        stored = await reader.call_tool("get", {"ids": ["new"]})
        assert isinstance(stored.structured_content, dict)
        assert [item["text"] for item in stored.structured_content["passages"]] == ["profit fell"]
