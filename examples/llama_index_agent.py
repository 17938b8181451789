"""An agent in LlamaIndex whose tool is a ColBERT index: it decides to search, reads the passages, and answers.

pip install 'rerank-integrations[llama-index,starter]'
python llama_index_agent.py "how do I read one file of an archive?"
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from llama_index.core import Settings
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole, MockFunctionCallingLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.tools import QueryEngineTool

from rerank_integrations import ColBERTIndex, ColBERTModel, Passage
from rerank_integrations.llama_index import ColBERTRetriever

LIBRARY = [
    Passage("zip", "ZipFile.read returns one member without extracting the archive.", {"module": "zipfile"}),
    Passage("csv", "csv.reader goes through the rows of comma-separated values.", {"module": "csv"}),
    Passage("disk", "shutil.disk_usage tells how much space is free on a disk.", {"module": "shutil"}),
    Passage("largest", "heapq.nlargest returns the n largest elements of a data set.", {"module": "heapq"}),
    Passage("token", "The secrets module makes random numbers for passwords.", {"module": "secrets"}),
    Passage("typo", "difflib.get_close_matches finds the words nearest to a typo.", {"module": "difflib"}),
]


def respond(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
    """Substitute for a language model: it calls the tool with the question, then quotes what the tool found first."""
    last = messages[-1]
    if last.role is MessageRole.TOOL:
        first_passage = " ".join(str(last.content).split("\n\n")[:2])
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"According to {first_passage}")
    call = ToolCallBlock(tool_call_id="1", tool_name="library", tool_kwargs={"input": last.content})
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=[call])


async def ask(question: str, index: ColBERTIndex) -> None:
    # Put a real LLM here, such as OpenAI() of llama-index-llms-openai.
    Settings.llm = MockFunctionCallingLLM(response_generator=respond)
    # The tool returns the passages themselves: the agent's own language model answers from them.
    engine = RetrieverQueryEngine.from_args(
        ColBERTRetriever(index, similarity_top_k=2), response_mode=ResponseMode.CONTEXT_ONLY
    )
    tool = QueryEngineTool.from_defaults(
        engine, name="library", description="Searches Python's standard library for what does a given task."
    )
    agent = FunctionAgent(tools=[tool], system_prompt="Answer from what the library says, and name the module.")
    handler = agent.run(question)
    async for event in handler.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"The agent called {event.tool_name}({event.tool_kwargs['input']!r})")
            for source in event.tool_output.raw_output.source_nodes:
                print(f"{source.score:6.2f}  [{source.node_id}] {source.text}")
    print(await handler)


question = " ".join(sys.argv[1:]) or "how do I read one file of an archive?"
with ColBERTIndex.create(None, ColBERTModel("starter")) as library:
    library.upsert(LIBRARY)
    asyncio.run(ask(question, library))
