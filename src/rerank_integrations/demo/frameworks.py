"""One question through the retriever of each framework that is installed."""

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
    """What one way of asking gave.

    Parameters
    ----------
    asked
        The framework's name, or ``the core``.
    hits
        Best first.
    seconds
        Wall time of a second call, the encoding of the question included: a framework sets itself up in the first.
    """

    asked: str
    hits: list[Hit]
    seconds: float


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    call()
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def ask_core(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Ask the index itself."""
    hits, seconds = _timed(lambda: index.search(question, k))
    return Answer("the core", hits, seconds)


def ask_langchain(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Ask through LangChain's retriever; raise `MissingExtraError` without langchain-core."""
    from rerank_integrations.langchain import ColBERTRetriever

    retriever = ColBERTRetriever(index=index, k=k)
    documents, seconds = _timed(lambda: retriever.invoke(question))
    hits = [
        Hit(str(found.id), found.metadata["relevance_score"], rank, found.page_content)
        for rank, found in enumerate(documents, start=1)
    ]
    return Answer("LangChain", hits, seconds)


def ask_llama_index(index: ColBERTIndex, question: str, k: int) -> Answer:
    """Ask through LlamaIndex's retriever; raise `MissingExtraError` without llama-index-core."""
    from rerank_integrations.llama_index import ColBERTRetriever

    retriever = ColBERTRetriever(index, similarity_top_k=k)
    nodes, seconds = _timed(lambda: retriever.retrieve(question))
    hits = [
        Hit(found.node.node_id, float(found.score or 0.0), rank, found.text)
        for rank, found in enumerate(nodes, start=1)
    ]
    return Answer("LlamaIndex", hits, seconds)


def ask_all(index: ColBERTIndex, question: str, k: int) -> tuple[list[Answer], list[MissingExtraError]]:
    """Ask through every framework that is installed; return the answers, and what says that one is absent.

    With no framework at all the core answers.
    """
    asked = [_ask_if_installed(ask, index, question, k) for ask in (ask_langchain, ask_llama_index)]
    answers = [each for each in asked if isinstance(each, Answer)]
    absent = [each for each in asked if isinstance(each, MissingExtraError)]
    return answers or [ask_core(index, question, k)], absent


def _ask_if_installed(
    ask: Callable[[ColBERTIndex, str, int], Answer], index: ColBERTIndex, question: str, k: int
) -> Answer | MissingExtraError:
    try:
        return ask(index, question, k)
    except MissingExtraError as error:
        return error
