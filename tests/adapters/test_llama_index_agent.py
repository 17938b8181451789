"""An agent of LlamaIndex that has the retriever or a query engine as its tool; scores and spans reach its caller."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms import MockLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore
from llama_index.core.tools import QueryEngineTool, RetrieverTool

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.llama_index import ColBERTRerank, ColBERTRetriever

LONG = "Nothing happened. " * 40 + "Then the archive was opened. " + "Nothing again. " * 40
QUERY = "open an archive"


@pytest.fixture
def retriever(colbert: ColBERTModel) -> Any:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([{"id": "log", "text": LONG}, {"id": "csv", "text": "csv goes through the rows of a table."}])
        yield ColBERTRetriever(index, similarity_top_k=2)


@pytest.fixture
def reranker(colbert: ColBERTModel) -> ColBERTRerank:
    return ColBERTRerank(colbert, top_n=1, window=32)


def asks_the_tool(name: str) -> MockFunctionCallingLLM:
    """A stand-in for a language model: it calls the tool once, then repeats what the tool said."""

    def respond(messages: Any, **_: Any) -> ChatMessage:
        if messages[-1].role is MessageRole.TOOL:
            return ChatMessage(role="assistant", content=f"Found: {messages[-1].content}")
        call = ToolSelection(tool_id="1", tool_name=name, tool_kwargs={"input": QUERY})
        return ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]})

    return MockFunctionCallingLLM(response_generator=respond)


class ReasoningLLM(MockLLM):
    """A stand-in that answers in the format of ReAct."""

    def _text(self, messages: Any) -> str:
        if "Observation:" in str(messages[-1].content):
            return "Thought: I can answer without using any more tools.\nAnswer: the archive was opened"
        return f'Thought: I need the tool.\nAction: library\nAction Input: {{"input": "{QUERY}"}}'

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        from llama_index.core.llms import ChatResponse

        async def stream() -> Any:
            text = self._text(messages)
            yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=text)

        return stream()


def check(nodes: list[NodeWithScore], reranker: ColBERTRerank, retriever: ColBERTRetriever, query: str) -> None:
    expected = reranker.postprocess_nodes(retriever.retrieve(query), query_str=query)
    assert [(found.node_id, found.score) for found in nodes] == [(found.node_id, found.score) for found in expected]
    metadata = nodes[0].node.metadata
    assert "archive was opened" in LONG[metadata["window_start"] : metadata["window_end"]]


async def results(agent: Any) -> tuple[AgentOutput, list[ToolCallResult]]:
    handler = agent.run(QUERY)
    streamed = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    return await handler, streamed


@pytest.mark.parametrize("kind", ["function", "react"])
async def test_the_retriever_as_a_tool(retriever: ColBERTRetriever, reranker: ColBERTRerank, kind: str) -> None:
    tool = RetrieverTool.from_defaults(retriever, node_postprocessors=[reranker], name="library", description="Logs.")
    if kind == "function":
        agent: Any = FunctionAgent(tools=[tool], llm=asks_the_tool("library"))
    else:
        agent = ReActAgent(tools=[tool], llm=ReasoningLLM(), streaming=True)
    output, streamed = await results(agent)
    (result,) = streamed
    assert not result.tool_output.is_error
    # The tool makes the query of its arguments.
    check(result.tool_output.raw_output, reranker, retriever, result.tool_output.raw_input["input"])
    assert "archive was opened" in str(output.response.content)
    # A language model reads the text and none of the scores.
    assert "window_start" not in result.tool_output.content
    assert "relevance_score" not in result.tool_output.content


async def test_a_query_engine_as_a_tool(retriever: ColBERTRetriever, reranker: ColBERTRerank) -> None:
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[reranker])
    tool = QueryEngineTool.from_defaults(engine, name="library", description="Logs.")
    output, streamed = await results(FunctionAgent(tools=[tool], llm=asks_the_tool("library")))
    (result,) = streamed
    check(result.tool_output.raw_output.source_nodes, reranker, retriever, QUERY)
    assert [call.tool_name for call in output.tool_calls] == ["library"]
    assert "relevance_score" not in str(output.response.content)


def test_a_tool_without_an_agent(retriever: ColBERTRetriever, reranker: ColBERTRerank) -> None:
    tool = RetrieverTool.from_defaults(retriever, node_postprocessors=[reranker])
    check(tool(QUERY).raw_output, reranker, retriever, f"{QUERY}\n\n")
