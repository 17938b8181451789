"""The tools through the SDK's own client, in one process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, Tool
from service import PASSAGES, GatedScorer, WordScorer, eventually, toy_index
from toy import ToyEncoder, reference_scores

from rerank_integrations import RemoteReranker
from rerank_integrations.mcp.protocol import protocol_server
from rerank_integrations.server import ServerSettings
from rerank_integrations.server.service import RerankerLike, Service

READING, WRITING = {"search", "get", "rerank"}, {"add", "delete"}


@contextlib.asynccontextmanager
async def connected(
    *names: str, about: str | None = None, rerankers: dict[str, RerankerLike] | None = None, **settings: Any
) -> AsyncIterator[Client]:
    chosen = ServerSettings(**{"warm_up": False, "writable": True, **settings})
    models = {"words": WordScorer()} if rerankers is None else rerankers
    service = Service({name: toy_index() for name in names}, models, chosen)
    async with Client(protocol_server(service, about), raise_exceptions=True) as client:
        yield client
    await service.close()


async def tools_of(client: Client) -> dict[str, Tool]:
    return {tool.name: tool for tool in (await client.list_tools()).tools}


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert block.type == "text"
    return block.text


async def answer(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def error(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error and result.structured_content is None
    return text_of(result)


async def test_which_tools_there_are() -> None:
    async with connected("toy", about="notes of a test") as client:
        tools = await tools_of(client)
        assert set(tools) == READING | WRITING
        assert "notes of a test" in (tools["search"].description or "")
        assert "notes of a test" in (client.instructions or "")
    async with connected("toy", writable=False) as client:
        assert set(await tools_of(client)) == READING
        with pytest.raises(MCPError, match="unknown tool 'add'; expected one of search, get, rerank"):
            await client.call_tool("add", {"passages": [{"text": "new"}]})
    async with connected() as client:
        assert set(await tools_of(client)) == {"rerank"}


async def test_what_a_client_may_show_or_ask_before_a_call() -> None:
    async with connected("toy") as client:
        for name, tool in (await tools_of(client)).items():
            hints = tool.annotations
            assert hints is not None and hints.open_world_hint is False
            assert hints.read_only_hint is (name in READING)
            if name in WRITING:
                assert (hints.destructive_hint, hints.idempotent_hint) == (True, True)
            assert tool.title and tool.output_schema


async def test_schemas_have_the_limits_and_names_of_the_service() -> None:
    async with connected("toy", max_k=7, max_texts=9) as client:
        tools = await tools_of(client)
        search = tools["search"].input_schema
        assert search["additionalProperties"] is False and search["required"] == ["query"]
        assert search["properties"]["k"]["maximum"] == 7
        assert set(search["properties"]) == {"query", "k", "where", "reranker"}
        assert tools["add"].input_schema["properties"]["passages"]["maxItems"] == 9
        assert tools["rerank"].input_schema["properties"]["model"]["anyOf"][0]["enum"] == ["words", "toy"]
    async with connected("one", "two", rerankers={}) as client:
        search = (await tools_of(client))["search"].input_schema
        assert search["required"] == ["query", "index"]
        assert search["properties"]["index"]["enum"] == ["one", "two"]
        assert "reranker" not in search["properties"]


async def test_search_returns_what_the_index_scores() -> None:
    async with connected("toy") as client:
        hits = (await answer(client, "search", query="light from the rain", k=4))["hits"]
        texts = {passage.id: passage.text for passage in PASSAGES}
        scores = reference_scores(ToyEncoder(), "light from the rain", list(texts.values()))
        expected = dict(zip(texts, scores, strict=True))
        assert {hit["id"]: hit["score"] for hit in hits} == {
            name: pytest.approx(score, abs=1e-2) for name, score in expected.items()
        }
        assert [hit["id"] for hit in hits] == sorted(expected, key=expected.__getitem__, reverse=True)
        shown = text_of(await client.call_tool("search", {"query": "light", "k": 1}))
        assert hits[0]["text"] and "1 passage of toy" in shown and '{"year": 2024}' in shown


async def test_a_condition_on_metadata() -> None:
    async with connected("toy") as client:
        hits = (await answer(client, "search", query="light", where={"year": {"$lt": 2024}}))["hits"]
        assert {hit["id"] for hit in hits} == {"river", "zip"}
        assert (await answer(client, "search", query="light", where={"year": 1900}))["hits"] == []
        assert "unknown filter operator '$near'" in await error(
            client, "search", query="light", where={"year": {"$near": 1}}
        )


async def test_every_operator_that_agents_read_of_works() -> None:
    async with connected("toy") as client:
        where = (await tools_of(client))["search"].input_schema["properties"]["where"]["description"]
        operators = set(re.findall(r"\$\w+", where))
        assert len(operators) == 13
        values: dict[str, Any] = {"$in": [2024], "$nin": [2024], "$exists": True, "$not": {"$eq": 1}, "$contains": "a"}
        for operator in operators - {"$and", "$or"}:
            await answer(client, "search", query="a", where={"year": {operator: values.get(operator, 2024)}})
        for operator in ("$and", "$or"):
            await answer(client, "search", query="a", where={operator: [{"year": 2024}]})
        await answer(client, "search", query="a", where={"$not": {"year": 2024}})


async def test_a_search_can_be_reranked() -> None:
    async with connected("toy") as client:
        body = await answer(client, "search", query="the river rose", k=2, reranker="words")
        scores = WordScorer().score("the river rose", [passage.text for passage in PASSAGES])
        best = sorted(zip(scores, (passage.id for passage in PASSAGES), strict=True), reverse=True)[:1]
        assert [(hit["score"], hit["id"]) for hit in body["hits"]][:1] == best
        assert len(body["hits"]) == 2 and body["reranker"] == "words"


async def test_rerank_returns_positions() -> None:
    async with connected("toy") as client:
        documents = ["rain", "the light rain", "a\nlight"]
        body = await answer(client, "rerank", query="the light rain", documents=documents, top_n=2)
        scores = WordScorer().score("the light rain", documents)
        assert [(item["position"], item["score"]) for item in body["ranking"]] == [(1, scores[1]), (0, scores[0])]
        assert body["model"] == "words" and body["score_scale"] == "own"
        by_index = await answer(client, "rerank", query="light", documents=documents, model="toy")
        assert by_index["model"] == "toy" and by_index["score_scale"] == "maxsim_sum"


async def test_passages_are_stored_read_and_removed() -> None:
    async with connected("toy") as client:
        first = {"id": "first", "text": "penguins swim", "metadata": {"kind": "bird"}}
        ids = (await answer(client, "add", passages=[first, {"text": "owls fly"}]))["ids"]
        assert ids[0] == "first" and len(ids) == 2
        # The same again changes nothing.
        assert (await answer(client, "add", passages=[first, {"text": "owls fly"}]))["ids"] == ids
        assert (await answer(client, "search", query="penguins", k=1))["hits"][0]["id"] == "first"
        stored = (await answer(client, "get", ids=[ids[1], "first", "nothing"]))["passages"]
        assert [item["text"] for item in stored] == ["owls fly", "penguins swim"]
        assert [item["id"] for item in (await answer(client, "get", where={"kind": "bird"}))["passages"]] == ["first"]
        assert len((await answer(client, "get"))["passages"]) == len(PASSAGES) + 2
        assert [item["id"] for item in (await answer(client, "get", limit=1, offset=1))["passages"]] == ["river"]
        assert (await answer(client, "delete", ids=["first", "nothing"]))["deleted"] == 1
        assert (await answer(client, "delete", where={"year": 2024}))["deleted"] == 2
        assert len((await answer(client, "get"))["passages"]) == len(PASSAGES) + 2 - 3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        pytest.param("search", {}, "the argument query is missing", id="missing"),
        pytest.param("search", {"query": " "}, "query", id="blank-query"),
        pytest.param("search", {"query": "a", "k": "5"}, "k is '5'", id="wrong-type"),
        pytest.param("search", {"query": "a", "k": 1001}, "k is 1001", id="too-many"),
        pytest.param("search", {"query": "a", "top": 1}, "unknown argument top; expected query, k", id="unknown"),
        pytest.param("search", {"query": "a", "index": "toy"}, "unknown argument index", id="nothing-to-choose"),
        pytest.param("search", {"query": "a", "reranker": "/etc/passwd"}, "reranker is '/etc/", id="no-reranker"),
        pytest.param("search", {"query": "\ud800"}, "\\ud800", id="surrogate"),
        pytest.param("rerank", {"query": "a", "documents": []}, "documents is []", id="no-documents"),
        pytest.param("rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n is 0", id="no-results"),
        pytest.param("rerank", {"query": "a", "documents": ["a"] * 1001}, "documents is ['a', 'a'", id="long-list"),
        pytest.param("get", {"ids": ["a"], "where": {}}, "both ids and where", id="get-both"),
        pytest.param("get", {"ids": ["a"], "limit": 1}, "limit", id="limit-with-ids"),
        pytest.param("add", {"passages": [{"text": "a", "tag": 1}]}, "unknown argument passages.0.tag", id="field"),
        pytest.param("add", {"passages": [{"text": 1}]}, "passages.0.text is 1", id="no-text"),
        pytest.param("delete", {}, "ids and where are both absent", id="delete-nothing"),
        pytest.param("delete", {"where": {}}, "where is {}", id="delete-everything"),
        pytest.param("delete", {"where": {"$and": [{}]}}, "met by every passage", id="delete-all-nested"),
        pytest.param("delete", {"where": {"$not": {"$or": [{"a": 1}, {}]}}}, "every passage", id="delete-all-or"),
    ],
)
async def test_bad_input_is_an_error_that_a_model_can_read(name: str, arguments: dict[str, Any], message: str) -> None:
    async with connected("toy") as client:
        assert message in await error(client, name, **arguments)
        assert len((await answer(client, "get"))["passages"]) == len(PASSAGES)


async def test_stored_passages_are_counted_and_named_once() -> None:
    async with connected("toy") as client:
        texts = [{"text": "a", "id": "same"}, {"text": "b", "id": "same"}, {"text": "c", "id": "two\nlines"}]
        result = await client.call_tool("add", {"passages": texts})
        assert result.content[0].text == 'Stored 2 passages in toy: same, "two\\nlines"'
        assert (await answer(client, "get", ids=["same"]))["passages"][0]["text"] == "b"


async def test_none_is_stored_if_one_cannot_be() -> None:
    async with connected("toy") as client:
        passages = [{"text": "good"}, {"text": "bad", "id": "with\0"}]
        assert "with\\x00" in await error(client, "add", passages=passages)
        assert len((await answer(client, "get"))["passages"]) == len(PASSAGES)


async def test_a_large_addition() -> None:
    async with connected("toy") as client:
        passages = [{"id": f"p{number}", "text": f"word{number} of a long list"} for number in range(1000)]
        assert len((await answer(client, "add", passages=passages))["ids"]) == 1000
        assert (await answer(client, "search", query="word777", k=1))["hits"][0]["id"] == "p777"
        assert "passages is" in await error(client, "add", passages=[*passages, {"text": "one more"}])


async def test_calls_at_the_same_time() -> None:
    async with connected("toy") as client:
        found: dict[int, str] = {}

        async def store_and_find(number: int) -> None:
            passage = {"id": f"p{number}", "text": f"unusual{number}"}
            await answer(client, "add", passages=[passage])
            found[number] = (await answer(client, "search", query=f"unusual{number}", k=1))["hits"][0]["id"]

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(store_and_find, number)
        assert found == {number: f"p{number}" for number in range(20)}


async def test_no_answer_in_time() -> None:
    scorer = GatedScorer()
    async with connected("toy", rerankers={"slow": scorer}, timeout=0.05) as client:
        assert "no answer within 0.05 seconds" in await error(client, "rerank", query="a", documents=["a"])
        await anyio.to_thread.run_sync(eventually, lambda: scorer.stopped == ["a"])


async def test_failures_of_the_service_name_no_address() -> None:
    with RemoteReranker("http://127.0.0.1:9", retries=0) as remote:
        async with connected(rerankers={"remote": remote}) as client:
            message = await error(client, "rerank", query="a", documents=["a"])
            assert "the remote reranker gave no scores" in message and "127.0.0.1" not in message
