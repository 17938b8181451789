"""LangChain's ``index()`` with a record manager, into a `ColBERTVectorStore`, in each clean-up mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex
from rerank_integrations.langchain import ColBERTVectorStore

Cleanup: TypeAlias = Literal["incremental", "full", "scoped_full"] | None
CLEANUPS: list[Cleanup] = [None, "incremental", "full", "scoped_full"]
ADDED = {"num_added": 0, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}


def document(source: str, text: str) -> Document:
    return Document(page_content=text, metadata={"source": source})


FIRST = [document("a.pdf", "one"), document("a.pdf", "two"), document("b.pdf", "three"), document("c.pdf", "one")]
# One chunk of a.pdf is another, one has gone; b.pdf is as it was; c.pdf has gone.
SECOND = [document("a.pdf", "another"), document("b.pdf", "three")]
# What the store holds after the second run.
LEFT: dict[Cleanup, set[tuple[str, str]]] = {
    None: {("a.pdf", "one"), ("a.pdf", "two"), ("a.pdf", "another"), ("b.pdf", "three"), ("c.pdf", "one")},
    "incremental": {("a.pdf", "another"), ("b.pdf", "three"), ("c.pdf", "one")},
    "scoped_full": {("a.pdf", "another"), ("b.pdf", "three"), ("c.pdf", "one")},
    "full": {("a.pdf", "another"), ("b.pdf", "three")},
}


@pytest.fixture
def store() -> Iterator[ColBERTVectorStore]:
    with ColBERTIndex.create(None, ToyEncoder()) as made:
        yield ColBERTVectorStore(made)


def stored(store: ColBERTVectorStore) -> list[tuple[str, str]]:
    return [(str(passage.metadata["source"]), passage.text) for passage in store.index.get(where={})]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("cleanup", CLEANUPS)
def test_nothing_is_doubled_and_what_changed_or_went_is_replaced(
    store: ColBERTVectorStore, cleanup: Cleanup, asynchronous: bool
) -> None:
    manager = InMemoryRecordManager("library")
    manager.create_schema()

    def run(documents: list[Document]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "cleanup": cleanup,
            "source_id_key": "source",
            "batch_size": 2,
            "key_encoder": "sha256",
        }
        if asynchronous:
            return dict(asyncio.run(aindex(documents, manager, store, **options)))
        return dict(index(documents, manager, store, **options))

    assert run(FIRST) == {**ADDED, "num_added": 4}
    assert run(FIRST) == {**ADDED, "num_skipped": 4}
    assert sorted(stored(store)) == sorted((item.metadata["source"], item.page_content) for item in FIRST)
    gone = len(LEFT[None]) - len(LEFT[cleanup])
    assert run(SECOND) == {**ADDED, "num_added": 1, "num_skipped": 1, "num_deleted": gone}
    assert sorted(stored(store)) == sorted(LEFT[cleanup])
    texts = {item.page_content for item in store.similarity_search("one two another three", k=9)}
    assert texts == {text for _, text in LEFT[cleanup]}
    assert run(SECOND) == {**ADDED, "num_skipped": 2}
    assert store.index.verify().passages == len(LEFT[cleanup])
