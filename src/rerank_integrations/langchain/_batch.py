"""Several queries through a retriever and a reranker at once: retrieved as their retriever does, scored together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from langchain_core.callbacks import CallbackManager, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import RunnableConfig

from rerank_integrations.langchain._compressor import Compressor


def retrieve_and_rerank(
    retriever: BaseRetriever,
    base: RetrieverLike,
    compressor: Compressor,
    queries: Sequence[str],
    configs: Sequence[RunnableConfig],
    **kwargs: Any,
) -> list[list[Document]]:
    """Return the documents of each query, under one retriever run each; an error closes all the runs."""
    with ExitStack() as runs:
        opened = [
            runs.enter_context(_run(retriever, query, config, kwargs))
            for query, config in zip(queries, configs, strict=True)
        ]
        below = [_below(run, config) for config, (run, _) in zip(configs, opened, strict=True)]
        found = base.batch(list(queries), below, **kwargs)
        filled = [place for place, documents in enumerate(found) if documents]
        ranked = compressor.compress_many(
            [found[place] for place in filled],
            [queries[place] for place in filled],
            [opened[place][0].get_child("compressor") for place in filled],
        )
        for place, documents in zip(filled, ranked, strict=True):
            opened[place][1].extend(documents)
    return [list(outputs) for _, outputs in opened]


def _below(run: CallbackManagerForRetrieverRun, config: RunnableConfig) -> RunnableConfig:
    """Return the base retriever's config: what ``invoke`` gives it, and how many may run at once."""
    below: RunnableConfig = {"callbacks": run.get_child("base_retriever")}
    if config.get("max_concurrency") is not None:
        below["max_concurrency"] = config["max_concurrency"]
    return below


@contextmanager
def _run(
    retriever: BaseRetriever, query: str, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> Iterator[tuple[CallbackManagerForRetrieverRun, list[Document]]]:
    """Open a retriever's run as ``BaseRetriever.invoke`` does; close it with its outputs, or with the error."""
    manager = CallbackManager.configure(
        config.get("callbacks"),
        None,
        inheritable_tags=config.get("tags"),
        local_tags=retriever.tags,
        inheritable_metadata={**(config.get("metadata") or {}), **retriever._get_ls_params(**kwargs)},
        local_metadata=retriever.metadata,
    )
    run: CallbackManagerForRetrieverRun = manager.on_retriever_start(
        None, query, name=config.get("run_name") or retriever.get_name(), run_id=config.get("run_id")
    )
    outputs: list[Document] = []
    try:
        yield run, outputs
    except BaseException as error:
        run.on_retriever_error(error)
        raise
    run.on_retriever_end(outputs)
