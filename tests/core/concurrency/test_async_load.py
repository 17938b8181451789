"""One index and one model under many threads and tasks give the answers of one thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from corpus import SENTENCES

from rerank_integrations import ColBERTIndex, ColBERTModel, Hit, InvalidInputError, Passage
from rerank_integrations.core.concurrency.aio import run_blocking

WORKERS = 32
QUERIES = [f"{' '.join(sentence.split()[:4])}?" for sentence in SENTENCES[:WORKERS]]
PASSAGES = [Passage(f"p{number:02}", text, {"n": number}) for number, text in enumerate(SENTENCES)]


@pytest.fixture
def index(tmp_path: Path, colbert: ColBERTModel) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(tmp_path / "index", colbert) as index:
        index.upsert(PASSAGES)
        yield index


def ask(index: ColBERTIndex, number: int) -> list[Any]:
    query = QUERIES[number]
    return [
        index.search(query, 5),
        index.search(query, 3, where={"n": {"$lt": 30}}),
        index.rerank(query, [passage.id for passage in PASSAGES[number::7]]),
        index.get([PASSAGES[number].id]),
        # Longer than a query may be: truncation of one kind must not reach the other.
        index.model.score(query, [SENTENCES[number] * 3])  # type: ignore[attr-defined]
    ]  # fmt: skip


@pytest.mark.slow
def test_32_threads_get_the_serial_answers(index: ColBERTIndex) -> None:
    serial = [ask(index, number) for number in range(WORKERS)]
    start = threading.Barrier(WORKERS)

    def work(number: int) -> list[Any]:
        start.wait()
        return ask(index, number)

    with ThreadPoolExecutor(WORKERS) as pool:
        assert list(pool.map(work, range(WORKERS))) == serial


def test_threads_that_upsert_delete_and_search_get_consistent_answers(index: ColBERTIndex) -> None:
    """Each writer changes its own passages in one commit: a reader sees all of a version or none."""
    group = [f"{name}-{place}" for name in "abc" for place in range(4)]
    stop = threading.Event()

    def write(name: str) -> None:
        for version in range(6):
            text = f"{SENTENCES[version]} {name}"
            index.upsert([Passage(f"{name}-{place}", text, {"owner": name, "version": version}) for place in range(4)])
            if version % 3 == 2:
                assert index.delete([f"{name}-{place}" for place in range(4)]) == 4
        if name == "a":
            index.compact()

    def read(number: int) -> int:
        turns = 0
        while not stop.is_set() or turns == 0:
            hits = index.search(QUERIES[number], 100, where={"owner": {"$exists": True}})
            for name in "abc":
                mine = [hit for hit in hits if hit.metadata["owner"] == name]
                assert len(mine) in (0, 4)
                assert len({hit.metadata["version"] for hit in mine}) <= 1
                assert len({hit.score for hit in mine}) <= 1
            assert index.search(QUERIES[number], 5, where={"n": {"$gte": 0}}) == expected[number]
            turns += 1
        return turns

    expected = [index.search(query, 5) for query in QUERIES]
    with ThreadPoolExecutor(11) as pool:
        readers = [pool.submit(read, number) for number in range(8)]
        writers = [pool.submit(write, name) for name in "abc"]
        try:
            for writer in writers:
                writer.result(60)
        finally:
            stop.set()
        assert all(reader.result(60) > 0 for reader in readers)
    assert index.get(group) == []
    assert index.verify().passages == len(index) == len(PASSAGES)


async def test_32_tasks_get_the_serial_answers(index: ColBERTIndex) -> None:
    serial = [index.search(query, 5) for query in QUERIES]
    answers = await asyncio.gather(*(run_blocking(index.search, query, 5) for query in QUERIES))
    assert answers == serial


async def test_tasks_search_beside_an_upsert(index: ColBERTIndex) -> None:
    serial = [index.search(query, 5) for query in QUERIES]

    async def search(number: int) -> list[Hit]:
        return await run_blocking(index.search, QUERIES[number], 5, where={"n": {"$gte": 0}})

    new = [Passage(f"new{number}", f"{text} Again.") for number, text in enumerate(SENTENCES)]
    ids, *answers = await asyncio.gather(run_blocking(index.upsert, new), *(search(n) for n in range(WORKERS)))
    assert ids == [passage.id for passage in new]
    assert answers == serial
    assert len(index) == len(PASSAGES) + len(new)


async def test_the_loop_goes_on_while_work_waits() -> None:
    """32 calls that sleep take as long as one, and the loop turns all the while."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.005)

    counting = asyncio.create_task(count())
    began = time.perf_counter()
    await asyncio.gather(*(run_blocking(time.sleep, 0.3) for _ in range(32)))
    took = time.perf_counter() - began
    counting.cancel()
    assert took < 3
    assert turns > 5


async def test_errors_arguments_and_context_pass_through(index: ColBERTIndex) -> None:
    with pytest.raises(InvalidInputError, match="k is -1"):
        await run_blocking(index.search, "text", k=-1)
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("the caller")
    assert await run_blocking(who.get) == "the caller"
    assert await run_blocking(lambda *args, **kwargs: (args, kwargs), 1, two=2) == ((1,), {"two": 2})
