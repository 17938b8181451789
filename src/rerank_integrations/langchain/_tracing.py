"""A compressor's run as tracers see it: LangChain traces runnables, and a compressor is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager, Callbacks
from langchain_core.documents import Document
from langchain_core.runnables.config import ensure_config

Report: TypeAlias = Callable[[list[Document]], None]


@contextmanager
def traced(name: str, model: str, inputs: dict[str, Any], callbacks: Callbacks | None) -> Iterator[Report]:
    """Open a run; close it with the documents that are reported, or with the error."""
    manager = CallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        yield outputs.extend
    except BaseException as error:
        run.on_chain_error(error)
        raise
    run.on_chain_end({"documents": outputs})


@asynccontextmanager
async def atraced(name: str, model: str, inputs: dict[str, Any], callbacks: Callbacks | None) -> AsyncIterator[Report]:
    """Do as `traced`, with asynchronous handlers awaited."""
    manager = AsyncCallbackManager.configure(_inherited(callbacks), inheritable_metadata=_ls_params(model))
    run = await manager.on_chain_start(None, inputs, name=name)
    outputs: list[Document] = []
    try:
        yield outputs.extend
    except BaseException as error:
        await run.on_chain_error(error)
        raise
    await run.on_chain_end({"documents": outputs})


def _inherited(callbacks: Callbacks | None) -> Callbacks | None:
    # Called inside a runnable without callbacks, the run still belongs under that runnable's.
    return ensure_config().get("callbacks") if callbacks is None else callbacks


def _ls_params(model: str) -> dict[str, Any]:
    return {"ls_provider": "rerank_integrations", "ls_model_name": model}
