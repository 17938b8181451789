"""The tools on the standard streams of a process."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from agent_server import RawClient, command
from mcp import Client, StdioServerParameters
from service import eventually, toy_index
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex


def made_index(path: Path) -> Path:
    toy_index(path).close()
    return path


async def test_the_sdks_client_lists_and_calls_each_tool(tmp_path: Path) -> None:
    program, *arguments = command(made_index(tmp_path / "index"))
    parameters = StdioServerParameters(command=program, args=arguments, env=child_env())
    async with Client(parameters) as client:
        assert client.server_info.name == "rerank-integrations"
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == ["search", "get", "rerank", "add", "delete"]
        for name, call in (
            ("search", {"query": "light", "where": {"year": 2024}}),
            ("get", {"ids": ["zip"]}),
            ("rerank", {"query": "light", "documents": ["a light", "rain"]}),
            ("add", {"passages": [{"id": f"p{number}", "text": f"text {number} " * 50} for number in range(1000)]}),
            ("delete", {"ids": ["zip"]}),
        ):
            result = await client.call_tool(name, call)
            assert not result.is_error, result
            assert result.structured_content
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder(), read_only=True) as index:
        assert index.count() == 4 + 1000 - 1


@pytest.mark.slow
def test_nothing_but_the_protocol_is_on_the_standard_output(tmp_path: Path) -> None:
    client = RawClient(command(made_index(tmp_path / "index")))
    assert "notes" in client.information["instructions"]
    # Bytes that are no message are no reason to end.
    assert client.process.stdin is not None
    client.process.stdin.write(b"\xff not json\n")
    assert client.call("search", {"query": "light"})["structuredContent"]["hits"]
    code, output, errors = client.end()
    assert (code, output) == (0, b"")
    for printed in (
        b"printed by the encoder",
        b"written to the first standard output",
        b"written to the descriptor",
        b"written by a child process",
    ):
        assert printed in errors
    calls = [json.loads(line) for line in errors.splitlines() if b'"tool call"' in line]
    assert [(line["tool"], "error" in line) for line in calls] == [("search", False)]
    assert b"Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, None], ids=["SIGTERM", "SIGINT", "end-of-input"])
def test_a_write_that_has_begun_is_finished(tmp_path: Path, ending: signal.Signals | None) -> None:
    client = RawClient(command(made_index(tmp_path / "index"), tmp_path))
    client.begin("tools/call", {"name": "add", "arguments": {"passages": [{"id": "new", "text": "new"}]}})
    eventually((tmp_path / "begun").exists)
    assert client.process.stdin is not None
    if ending is None:
        client.process.stdin.close()
        client.process.stdin = None
    else:
        client.process.send_signal(ending)
    (tmp_path / "gate").touch()
    code, _, errors = client.end()
    assert code == 0, errors
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder()) as index:
        assert index.get(["new"])[0].text == "new"


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_the_end(tmp_path: Path) -> None:
    code = (
        "from rerank_integrations import CrossEncoderModel\n"
        "from rerank_integrations.mcp import serve_stdio\n"
        f"serve_stdio({{}}, {{'ce': CrossEncoderModel({str(tmp_path)!r})}})"
    )
    client = RawClient([sys.executable, "-c", code])
    returncode = client.process.wait()
    _, output, errors = client.end()
    assert returncode == 1 and output == b""
    assert b"the server could not start" in errors
