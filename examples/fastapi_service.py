"""A FastAPI service in LangChain that streams its answers; with --load it is asked by 50 callers at once.

pip install 'rerank-integrations[langchain,starter]' fastapi uvicorn httpx
python fastapi_service.py --load
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage

from rerank_integrations import ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
    "secrets": "The secrets module makes random numbers fit for passwords and tokens.",
}
QUESTIONS = {
    "zipfile": "how do I read one file of an archive?",
    "csv": "how do I read the rows of a table?",
    "shutil": "how much room is left on my disk?",
    "secrets": "how do I make a password?",
}


class QuotingModel(SimpleChatModel):
    """Substitute for a language model: it quotes the first source of its prompt."""

    @property
    def _llm_type(self) -> str:
        return "quoting"

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        return f"According to {str(messages[-1].content).splitlines()[1]}"


llm = QuotingModel()  # Put a real one here, such as ChatOpenAI() of langchain-openai.
# All callers share one model and one index. Their work is done off the event loop.
retriever = ColBERTRetriever.from_texts(LIBRARY.values(), ColBERTModel("starter"), ids=LIBRARY, k=2)
app = FastAPI()


@app.get("/answer")
async def answer(question: str) -> StreamingResponse:
    """Stream a JSON line with the sources, then a line per piece of the answer."""
    documents = await retriever.ainvoke(question)
    sources = "\n".join(f"[{document.id}] {document.page_content}" for document in documents)

    async def lines() -> AsyncIterator[str]:
        yield json.dumps({"sources": [document.id for document in documents]}) + "\n"
        async for chunk in llm.astream(f"Answer from these sources:\n{sources}\n\nQuestion: {question}"):
            yield json.dumps({"text": chunk.content}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def ask(client: httpx.AsyncClient, name: str) -> bool:
    """Return whether the answer to the question on `name` cites and quotes it."""
    async with client.stream("GET", "/answer", params={"question": QUESTIONS[name]}) as response:
        first, *rest = [json.loads(line) async for line in response.aiter_lines()]
    text = "".join(line["text"] for line in rest)
    return first["sources"][0] == name and text == f"According to [{name}] {LIBRARY[name]}"


async def load(callers: int = 50) -> None:
    """Serve on a free port, ask from the same event loop, and measure how late a timer of this loop is at most."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    names = [list(QUESTIONS)[number % len(QUESTIONS)] for number in range(callers)]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        asking = asyncio.gather(*(ask(client, name) for name in names))
        longest, start = 0.0, time.perf_counter()
        while not asking.done():
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - before - 0.01)
        seconds = time.perf_counter() - start
    print(f"{callers} callers at once: {sum(await asking)} right answers in {seconds:.1f} s")
    print(f"The event loop was late by at most {1000 * longest:.0f} ms")
    server.should_exit = True
    await serving


if __name__ == "__main__":
    if "--load" in sys.argv:
        asyncio.run(load())
    else:
        uvicorn.run(app, port=8000)
