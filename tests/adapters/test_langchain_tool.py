"""The retriever as a tool: text for the language model, ids, scores and spans for the program, in an agent too."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.langchain import ColBERTRerank, ColBERTRetriever, RerankingRetriever, create_retriever_tool

LONG = "Nothing happened. " * 30 + "Then the archive was opened. " + "Nothing again. " * 30
CALL = {"name": "library", "args": {"query": "open an archive"}, "id": "call-1", "type": "tool_call"}


class ToolCalling(GenericFakeChatModel):
    """A stand-in for a language model, which says what it is told to say."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.fixture
def tool(colbert: ColBERTModel) -> Any:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([{"id": "log", "text": LONG, "metadata": {"page": 3}}, {"id": "csv", "text": "csv reads tables"}])
        retriever = RerankingRetriever(
            base_retriever=ColBERTRetriever(index=index), compressor=ColBERTRerank(model=colbert, window=16)
        )
        yield create_retriever_tool(retriever, "library", "Looks up the library's log.")


async def test_content_for_the_model_and_an_artifact_for_the_program(tool: BaseTool) -> None:
    message, later = tool.invoke(CALL), await tool.ainvoke(CALL)
    assert isinstance(message, ToolMessage)
    assert (message.content, message.artifact) == (later.content, later.artifact)
    assert {row["id"]: row["text"] for row in message.artifact} == {"log": LONG, "csv": "csv reads tables"}
    assert message.content == "\n\n".join(row["text"] for row in message.artifact)
    (log,) = [row for row in message.artifact if row["id"] == "log"]
    assert log["metadata"] == {"page": 3}
    assert type(log["score"]) is float
    assert 0 <= log["window_start"] < log["window_end"] <= len(LONG)
    assert [row["rank"] for row in message.artifact] == [1, 2]
    assert json.loads(json.dumps(message.artifact)) == message.artifact
    assert tool.args_schema.model_json_schema()["required"] == ["query"]  # type: ignore[union-attr]


def test_any_retriever_and_a_prompt_of_ones_own() -> None:
    documents = [Document("a text", metadata={"page": 3, "truncated": "mine"}), Document("another", id="b")]
    documents[1].metadata = {"page": 4, "relevance_score": 0.5, "read": date(2024, 2, 29), "file": Path("a.md")}
    tool = create_retriever_tool(
        RunnableLambda(lambda query: documents),
        "notes",
        "Notes.",
        document_prompt=PromptTemplate.from_template("{page_content} (page {page})"),
        document_separator=" | ",
    )
    message = tool.invoke({**CALL, "name": "notes"})
    assert message.content == "a text (page 3) | another (page 4)"
    assert message.artifact == [
        {"id": None, "text": "a text", "rank": 1, "metadata": {"page": 3, "truncated": "mine"}},
        {
            "id": "b",
            "text": "another",
            "rank": 2,
            "score": 0.5,
            "metadata": {"page": 4, "relevance_score": 0.5, "read": "2024-02-29", "file": "a.md"},
        },
    ]


async def test_in_an_agent(tool: BaseTool) -> None:
    agents = pytest.importorskip("langchain.agents")
    memory = pytest.importorskip("langgraph.checkpoint.memory")

    def agent() -> Any:
        said = [AIMessage("", tool_calls=[CALL]), AIMessage("It was opened.")]
        return agents.create_agent(ToolCalling(messages=iter(said)), [tool], checkpointer=memory.InMemorySaver())

    question: Any = {"messages": [{"role": "user", "content": "What of the archive?"}]}
    config: Any = {"configurable": {"thread_id": "one"}}
    for answer in (agent().invoke(question, config), await agent().ainvoke(question, config)):
        _, _, result, last = answer["messages"]
        assert isinstance(result, ToolMessage)
        assert (result.status, last.content) == ("success", "It was opened.")
        assert {row["id"] for row in result.artifact} == {"log", "csv"}
        assert all("window_start" in row and "score" in row for row in result.artifact)
