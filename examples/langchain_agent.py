"""An agent in LangChain (LangGraph) whose tool is a ColBERT index: it decides to search, reads, and answers.

pip install 'rerank-integrations[langchain,starter]' langchain
python langchain_agent.py "how do I read one file of an archive?"
"""

import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from rerank_integrations import ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever, create_retriever_tool

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "heapq": "heapq.nlargest returns the n largest elements of a data set.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
    "secrets": "The secrets module makes random numbers fit for passwords and tokens.",
    "difflib": "difflib.get_close_matches finds the words most similar to a misspelt one.",
}


class ToolCallingModel(BaseChatModel):
    """Substitute for a language model: it searches for what the user asks, then quotes the first passage."""

    @property
    def _llm_type(self) -> str:
        return "tool-calling"

    def bind_tools(self, tools: Any, **kwargs: Any) -> "ToolCallingModel":
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            answer = AIMessage(f"The library says: {str(last.content).splitlines()[0]}")
        else:
            answer = AIMessage("", tool_calls=[{"name": "search_library", "args": {"query": last.content}, "id": "1"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])


question = " ".join(sys.argv[1:]) or "how do I read one file of an archive?"
llm = ToolCallingModel()  # Put a real one here, such as ChatOpenAI() of langchain-openai.

retriever = ColBERTRetriever.from_texts(LIBRARY.values(), ColBERTModel("starter"), ids=LIBRARY, k=2)
search_library = create_retriever_tool(
    retriever, "search_library", "Search the standard library of Python. Returns short descriptions of its functions."
)
agent = create_agent(llm, [search_library], system_prompt="Answer from the library alone.")
result = agent.invoke({"messages": [{"role": "user", "content": question}]})

for message in result["messages"]:
    for call in getattr(message, "tool_calls", []):
        print(f"The agent calls {call['name']}({call['args']['query']!r})")
    # The language model gets the texts; the program gets ids and scores too.
    for row in getattr(message, "artifact", None) or []:
        print(f"{row['score']:6.2f}  [{row['id']}] {row['text']}")
print(result["messages"][-1].content)
