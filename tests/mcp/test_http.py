"""The tools over HTTP, on a real port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from service import WordScorer, running, toy_index

from rerank_integrations import InvalidInputError
from rerank_integrations.mcp import create_mcp_app
from rerank_integrations.server import ServerSettings

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"accept": "application/json, text/event-stream"}


@contextlib.contextmanager
def served(allowed_hosts: tuple[str, ...] = (), **settings: Any) -> Iterator[str]:
    chosen = ServerSettings(**{"warm_up": False, "writable": True, **settings})
    app = create_mcp_app({"toy": toy_index()}, {"words": WordScorer()}, chosen, allowed_hosts=allowed_hosts)
    with running(app) as address:
        yield address


@contextlib.asynccontextmanager
async def connected(address: str, mode: str) -> AsyncIterator[Client]:
    async with Client(f"{address}/mcp", mode=mode) as client:
        yield client


@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
async def test_the_sdks_client_lists_and_calls_each_tool(mode: str) -> None:
    with served() as address:
        async with connected(address, mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "search",
                "get",
                "rerank",
                "add",
                "delete",
            ]
            big = [{"id": f"p{number}", "text": f"word{number} " * 300} for number in range(1000)]
            for name, call in (
                ("search", {"query": "light", "where": {"year": 2024}}),
                ("get", {"ids": ["zip"]}),
                ("rerank", {"query": "light", "documents": ["a light", "rain"]}),
                ("add", {"passages": big}),
                # An answer of megabytes.
                ("get", {"limit": 1000}),
                ("delete", {"ids": ["zip"]}),
            ):
                result = await client.call_tool(name, call)
                assert not result.is_error, result
                assert result.structured_content
            refused = await client.call_tool("search", {"query": "light", "colour": 1})
            assert refused.is_error

            async def search(number: int) -> None:
                found = await client.call_tool("search", {"query": f"word{number}", "k": 1})
                assert isinstance(found.structured_content, dict)
                assert found.structured_content["hits"][0]["id"] == f"p{number}"

            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(search, number)


async def test_a_token() -> None:
    import httpx2

    with served(token="the token of the test") as address:
        assert httpx.post(f"{address}/mcp", json=LIST, headers=ACCEPT).status_code == 401
        wrong = {**ACCEPT, "authorization": "Bearer another token"}
        assert httpx.post(f"{address}/mcp", json=LIST, headers=wrong).status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 401
        async with (
            httpx2.AsyncClient(headers={"authorization": "Bearer the token of the test"}) as http,
            Client(streamable_http_client(f"{address}/mcp", http_client=http)) as client,
        ):
            assert (await client.call_tool("search", {"query": "light"})).structured_content


def test_pages_in_a_browser_reach_nothing_by_another_name() -> None:
    def status(address: str, **headers: str) -> int:
        return httpx.post(f"{address}/mcp", json=LIST, headers={**ACCEPT, **headers}).status_code

    with served() as address:
        port = address.rpartition(":")[2]
        assert status(address) == 200
        assert status(address, host=f"localhost:{port}", origin="http://localhost:3000") == 200
        assert status(address, host=f"rebound.example:{port}") == 421
        assert status(address, host="127.0.0.1.rebound.example") == 421
        assert status(address, origin="https://rebound.example") == 403
    with served(allowed_hosts=("search.example.org",)) as address:
        assert status(address, host="search.example.org") == 200
        assert status(address, host="search.example.org:8443", origin="https://search.example.org") == 200
        assert status(address, host="other.example.org") == 421


def test_what_is_refused_before_a_tool_is_called() -> None:
    with served(max_body_bytes=1000) as address:
        url = f"{address}/mcp"
        assert httpx.post(url, content=b" " * 1001, headers=ACCEPT).status_code == 413
        assert httpx.post(url, content=iter([b" " * 600] * 2), headers=ACCEPT).status_code == 413
        json_type = {**ACCEPT, "content-type": "application/json"}
        assert httpx.post(url, content=b"{", headers=json_type).status_code == 400
        assert httpx.post(url, content=b"[" * 900, headers=json_type).status_code == 400
        assert httpx.get(url, headers=ACCEPT).status_code == 405
        assert httpx.delete(url).status_code == 405
        # The routes of the HTTP service are not there.
        assert httpx.post(f"{address}/v1/search", json={"query": "light"}).status_code == 404
        assert httpx.get(f"{address}/").status_code == 404
        assert httpx.get(f"{address}/ready").json() == {"status": "ready"}
        assert "rerank_requests_total" in httpx.get(f"{address}/metrics").text


@pytest.mark.parametrize("host", ["", "*", "http://a.example", "a.example/mcp", ":80"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError, match="the allowed host is"):
        create_mcp_app({}, {"words": WordScorer()}, allowed_hosts=[host])
