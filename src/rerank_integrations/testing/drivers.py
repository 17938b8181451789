"""The interface between the checks and a framework: documents, calls, events and serialisation."""

from __future__ import annotations

import unittest
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

# A component, document or node of a framework that is imported only when a check runs.
Component: TypeAlias = Any
Native: TypeAlias = Any


class ConformanceError(AssertionError):
    """A component does not meet a demand; the message says what was expected and what came."""


# pytest and unittest both report it as a skipped test.
NotApplicable = unittest.SkipTest


@dataclass(frozen=True)
class Item:
    """A document or node as the checks see it; `score` is the object that the component gave, or ``None``."""

    id: str | None
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: Any = None


@dataclass
class Run:
    """A traced run or an event: how often it ended, with which ids (if it had any), and whether by an error."""

    name: str
    ends: int = 0
    ids: list[str | None] | None = None
    failed: bool = False


@dataclass
class Recording:
    """The runs that handlers saw while a component was called, and the handlers to pass to it."""

    runs: dict[object, Run] = field(default_factory=dict)
    handlers: list[Any] = field(default_factory=list)


class Driver(Protocol):
    """Translation between the checks and one framework."""

    name: str

    def documents(self, items: Iterable[Item]) -> list[Native]:
        """Return new documents or nodes."""
        ...

    def item(self, document: Native) -> Item:
        """Return what the checks read of a result."""
        ...

    def metadata(self, document: Native) -> dict[str, Any]:
        """Return the metadata of a document itself, to be changed."""
        ...

    def texts(self, document: Native) -> list[str]:
        """Return every text of a document that a model would read."""
        ...

    def snapshot(self, documents: Iterable[Native]) -> str:
        """Return everything about the documents as text."""
        ...

    def rerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call a reranker."""
        ...

    async def arerank(
        self, reranker: Component, documents: Any, query: Any, recording: Recording | None = None
    ) -> list[Native]:
        """Call a reranker's asynchronous method."""
        ...

    def retrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call a retriever."""
        ...

    async def aretrieve(self, retriever: Component, query: Any, recording: Recording | None = None) -> list[Native]:
        """Call a retriever's asynchronous method."""
        ...

    def recording(self, component: Component) -> AbstractContextManager[Recording]:
        """Record the runs of `component` while the context lasts."""
        ...

    def written(self, component: Component) -> str:
        """Return the component as the framework writes it in JSON."""
        ...

    def read(self, text: str, like: Component) -> Component:
        """Return the component that was written."""
        ...


def require(condition: object, message: str) -> None:
    """Raise a `ConformanceError` unless the condition holds.

    Raises
    ------
    ConformanceError
        If it does not.
    """
    if not condition:
        raise ConformanceError(message)


def close(first: Sequence[Item], second: Sequence[Item]) -> bool:
    """Return whether two answers are equal: the same ids and texts in the same order, and scores to rounding.

    Scores may differ by the rounding of another number of threads, and two items whose scores are that close may stand
    in either order.
    """
    if [(item.id, item.text) for item in first] == [(item.id, item.text) for item in second]:
        return all(_near(one.score, other.score) for one, other in zip(first, second, strict=True))
    if sorted(map(_key, first)) != sorted(map(_key, second)):
        return False
    scored = all(item.score is not None for item in (*first, *second))
    return scored and all(_near(one.score, other.score) for one, other in zip(first, second, strict=True))


def _key(item: Item) -> tuple[str, str]:
    return str(item.id), item.text


def _near(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return abs(float(first) - float(second)) <= 1e-4 * max(1.0, abs(float(first)))


def sample_items() -> list[Item]:
    """Return six passages on different things, with ids and nested metadata."""
    texts = (
        "Mars looks red because its soil holds iron oxide, which is rust.",
        "A zip archive is opened, and its members are read without extracting them.",
        "Bread rises because yeast gives off carbon dioxide.",
        "The Nile flows north through eleven countries, and it ends in a delta on the Mediterranean Sea.",
        "Net profit grew in 2024.",
        "A comet's tail points away from the sun.",
    )
    return [
        Item(f"passage-{number}", text, {"source": f"{number}.txt", "year": 2000 + number, "tags": ["sample"]})
        for number, text in enumerate(texts)
    ]


QUERIES = ("why is Mars red", "read a zip file without extracting it", "where does the Nile end", "tail of a comet")
