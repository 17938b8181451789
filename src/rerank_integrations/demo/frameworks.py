"""Search through the retriever of each installed framework."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.types import Hit
from rerank_integrations.errors import MissingExtraError

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Hits of one framework, and the time they took.

    Parameters
    ----------
    framework
        The framework's name, or ``the core``.
    hits
        The hits, best first.
    seconds
        Wall time of a second call, including the encoding of the question; in the first call a framework initializes
        itself.
    """

    framework: str
    hits: list[Hit]
    seconds: float


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    call()
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def ask_core(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Search the index without a framework."""
    hits, seconds = _timed(lambda: index.search(question, k))
    return Answer("the core", hits, seconds)


def ask_langchain(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Search through LangChain's retriever; raise `MissingExtraError` without langchain-core."""
    from rerank_integrations.langchain import ColBERTRetriever

    retriever = ColBERTRetriever(index=index, k=k)
    documents, seconds = _timed(lambda: retriever.invoke(question))
    hits = [
        Hit(str(document.id), document.metadata["relevance_score"], rank, document.page_content)
        for rank, document in enumerate(documents, start=1)
    ]
    return Answer("LangChain", hits, seconds)


def ask_llama_index(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Search through LlamaIndex's retriever; raise `MissingExtraError` without llama-index-core."""
    from rerank_integrations.llama_index import ColBERTRetriever

    retriever = ColBERTRetriever(index, similarity_top_k=k)
    nodes, seconds = _timed(lambda: retriever.retrieve(question))
    hits = [
        Hit(node.node.node_id, float(node.score or 0.0), rank, node.text) for rank, node in enumerate(nodes, start=1)
    ]
    return Answer("LlamaIndex", hits, seconds)


def ask_all(index: ColBERTIndex, question: str, k: int) -> tuple[list[Answer], list[MissingExtraError]]:
    """Search through every installed framework; return the answers, and an error for each missing framework.

    Without any framework, the answer is that of the core.
    """
    results = [_ask_if_installed(ask, index, question, k) for ask in (ask_langchain, ask_llama_index)]
    answers = [result for result in results if isinstance(result, Answer)]
    missing = [result for result in results if isinstance(result, MissingExtraError)]
    return answers or [ask_core(index, question, k)], missing


def _ask_if_installed(
    ask: Callable[[ColBERTIndex, str, int], Answer], index: ColBERTIndex, question: str, k: int
) -> Answer | MissingExtraError:
    try:
        return ask(index, question, k)
    except MissingExtraError as error:
        return error
