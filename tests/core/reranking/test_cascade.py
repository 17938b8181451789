"""Cascades: the input of each stage, its note, and the result when time runs out or a stage fails."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import ENGLISH
from toy import Floats, ToyEncoder, child_env

from rerank_integrations import (
    Candidate,
    Cascade,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    CrossEncoderScorer,
    Hit,
    InvalidInputError,
    PlainScorer,
    Reranker,
    rerank,
)
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.concurrency.cancel import check_wanted


class Length:
    """Scorer by a text's length, or by its negative."""

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign
        self.asked: list[list[str]] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.asked.append(texts)
        return [float(self.sign * len(text)) for text in texts]


class Acting:
    """Scorer that calls a function, then returns zeros."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.act()
        return [0.0] * len(texts)


def raising(error: BaseException) -> Acting:
    def act() -> None:
        raise error

    return Acting(act)


def stage(scorer: Any, **arguments: Any) -> Reranker:
    return Reranker(PlainScorer(scorer), **arguments)


TEXTS = ["aa", "a", "aaaa", "aaa"]
CANDIDATES = [Candidate(None, text, score) for text, score in zip(TEXTS, [4.0, 3.0, 2.0, 1.0], strict=True)]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Assert after each test that the threads of time budgets end soon."""
    yield
    end = time.monotonic() + 10
    while budget_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert budget_threads() == []


def budget_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rerank-integrations-budget"]


def test_each_stage_gets_the_best_of_the_one_before() -> None:
    first, second = Length(), Length(-1)
    cascade = Cascade([("long", stage(first, top_n=3)), ("short", stage(second, top_n=2))])
    ranked = cascade.rank("query", CANDIDATES)
    assert first.asked == [TEXTS]
    assert second.asked == [["aaaa", "aaa", "aa"]]
    assert [(one.place, one.score) for one in ranked] == [(0, -2.0), (3, -3.0)]
    assert ranked[0].note == {
        "retrieval_score": 4.0,
        "retrieval_rank": 1,
        "score_scale": "own",
        "rerank_stage": "short",
        "rerank_scores": {"long": 2.0, "short": -2.0},
    }


def test_a_cascade_of_models(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> None:
    texts = list(ENGLISH[:20])
    cascade = Cascade(
        [
            ("colbert", Reranker(ColBERTScorer(colbert), top_n=8)),
            ("reader", Reranker(CrossEncoderScorer(cross_encoder))),
        ],
        top_n=3,
        time_budget=60,
    )
    hits = rerank("rain", texts, cascade)
    few = [hit.text for hit in rerank("rain", texts, colbert, top_n=8)]
    expected = rerank("rain", few, cross_encoder, top_n=3)
    assert [(hit.text, hit.rank) for hit in hits] == [(hit.text, hit.rank) for hit in expected]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert rerank("rain", texts, cascade, top_n=2) == hits[:2]
    for again in (copy.deepcopy(cascade), pickle.loads(pickle.dumps(cascade))):
        assert [hit.text for hit in rerank("rain", texts, again)] == [hit.text for hit in hits]


@pytest.mark.parametrize("budget", [None, 60])
def test_a_stage_that_fails_leaves_the_order_before_it(budget: float | None, caplog: pytest.LogCaptureFixture) -> None:
    failing = stage(raising(ValueError("no memory")))
    cascade = Cascade([("long", stage(Length(), top_n=3)), ("bad", failing)], top_n=2, time_budget=budget)
    with caplog.at_level(logging.ERROR, "rerank_integrations"):
        ranked = cascade.rank("query", CANDIDATES)
    assert [(one.place, one.score) for one in ranked] == [(2, 4.0), (3, 3.0)]
    assert {one.note["rerank_stopped"] for one in ranked} == {"bad: ValueError: no memory"}
    assert ranked[0].note["rerank_stage"] == "long"
    assert "no memory" in caplog.text
    # Of the first stage: the order given.
    ranked = Cascade([("bad", failing)], top_n=3, time_budget=budget).rank("query", CANDIDATES)
    assert [(one.place, one.score) for one in ranked] == [(0, 4.0), (1, 3.0), (2, 2.0)]
    assert ranked[2].note == {
        "retrieval_score": 2.0, "retrieval_rank": 3, "rerank_stopped": "bad: ValueError: no memory"
    }  # fmt: skip


def test_scores_that_were_not_given_are_zero() -> None:
    cascade = Cascade([("bad", stage(raising(ValueError())))])
    hits = rerank("query", ["a", Hit("nan", float("nan"), 1, "b")], cascade)
    assert [(hit.text, hit.score) for hit in hits] == [("a", 0.0), ("b", 0.0)]
    assert "retrieval_score" not in hits[1].note


def test_time_that_runs_out_within_a_stage() -> None:
    release = threading.Event()
    cascade = Cascade(
        [("long", stage(Length(), top_n=3)), ("slow", stage(Acting(lambda: release.wait(30))))], time_budget=0.2
    )
    start = time.monotonic()
    ranked = cascade.rank("query", CANDIDATES)
    assert time.monotonic() - start < 20
    release.set()
    assert [one.place for one in ranked] == [2, 3, 0]
    assert {one.note["rerank_stopped"] for one in ranked} == {"slow: the time budget of 0.2 s ran out"}


def test_time_that_has_run_out_before_a_stage() -> None:
    last = Length()
    cascade = Cascade(
        [("slow", stage(Acting(lambda: time.sleep(0.05)))), ("last", stage(last))], time_budget=np.float64(1e-9)
    )
    ranked = cascade.rank("query", CANDIDATES)
    assert [one.place for one in ranked] == [0, 1, 2, 3]
    assert all("time budget of 1e-09 s ran out" in one.note["rerank_stopped"] for one in ranked)
    assert last.asked == []


def test_a_time_out_of_a_stage_s_own_is_its_own() -> None:
    cascade = Cascade([("remote", stage(raising(TimeoutError("no answer"))))], time_budget=60)
    (one, *_) = cascade.rank("query", CANDIDATES)
    assert one.note["rerank_stopped"] == "remote: TimeoutError: no answer"


def batches_until_told(batches: list[int], limit: int = 2000) -> Callable[[], None]:
    """Return work that checks before each batch, as the models do, whether it was cancelled."""

    def work() -> None:
        for number in range(limit):
            check_wanted()
            batches.append(number)
            time.sleep(0.005)

    return work


def test_the_work_stops_at_its_next_batch() -> None:
    batches: list[int] = []
    cascade = Cascade([("slow", stage(Acting(batches_until_told(batches))))], time_budget=0.1)
    assert "ran out" in cascade.rank("query", CANDIDATES)[0].note["rerank_stopped"]
    wait_for(lambda: not budget_threads())
    assert 0 < len(batches) < 1000


class Slow(ToyEncoder):
    """Scorer as slow as a large model, with one text per batch."""

    def encode_documents(self, texts: Any, show_progress: bool = False) -> list[Floats]:
        found: list[Floats] = []
        for text in texts:
            check_wanted()
            time.sleep(0.005)
            found += super().encode_documents([text])
        return found


def test_a_colbert_stage_stops_within_its_batches() -> None:
    slow = Slow()
    cascade = Cascade([("colbert", Reranker(ColBERTScorer(slow)))], time_budget=0.1)
    hits = rerank("query", [f"text {number}" for number in range(2000)], cascade)
    assert [hit.text for hit in hits] == [f"text {number}" for number in range(2000)]
    wait_for(lambda: not budget_threads())
    assert len(slow.encoded) < 1000


@pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")
@pytest.mark.parametrize("kind", ["colbert", "cross_encoder"])
def test_the_models_stop_between_batches(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(f"{kind}_dir")
    made = {"colbert": ColBERTModel, "cross_encoder": CrossEncoderModel}[kind]
    # A batch holds a single text of 256 tokens.
    model: Any = made(path, dtype="float32", device="cpu", batch_size=1)
    model.score("rain", ["loaded"])
    texts = [f"{' '.join(ENGLISH[:10])} {number}" for number in range(3000)]
    scorer = ColBERTScorer(model) if kind == "colbert" else CrossEncoderScorer(model)
    start = time.monotonic()
    hits = rerank("rain", texts, Cascade([("model", Reranker(scorer))], time_budget=1.5))
    assert all("ran out" in hit.note["rerank_stopped"] for hit in hits)
    wait_for(lambda: not budget_threads())
    stopped = time.monotonic() - start
    start = time.monotonic()
    model.score("rain", texts[:100])
    # All of it would have taken at least ten times as long.
    assert stopped < 1.5 + (time.monotonic() - start) * 15


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_end_of_the_process_passes_through(error: BaseException) -> None:
    for budget in (60, None):
        with pytest.raises(type(error)):
            Cascade([("bad", stage(raising(error)))], time_budget=budget).rank("query", CANDIDATES)


# In a process of its own, since the signal may meet any code that the main thread runs.
INTERRUPTED = """
import signal, sys, threading
from test_cascade import CANDIDATES, Acting, batches_until_told, budget_threads, stage, wait_for
from rerank_integrations import Cascade

# A process that a shell started in the background ignores the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
batches = []

def interrupt():
    wait_for(lambda: len(batches) > 2)
    # As Control-C does.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

threading.Thread(target=interrupt).start()
cascade = Cascade([("slow", stage(Acting(batches_until_told(batches))))], time_budget=60)
try:
    cascade.rank("query", CANDIDATES)
except KeyboardInterrupt:
    wait_for(lambda: not budget_threads())
    print(len(batches))
"""


def test_an_interrupt_passes_through_and_ends_the_work() -> None:
    environment = child_env()
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment["PYTHONPATH"]])
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 1500


def test_a_cascade_within_a_cascade_stops_with_the_outer_one() -> None:
    batches: list[int] = []
    inner = Cascade([("slow", stage(Acting(batches_until_told(batches))))], time_budget=60)

    class Nested:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [one.score for one in inner.rank(query, [Candidate(None, text) for text in texts])]

    outer = Cascade([("outer", stage(Nested()))], time_budget=0.1)
    assert "ran out" in outer.rank("query", CANDIDATES)[0].note["rerank_stopped"]
    wait_for(lambda: not budget_threads())
    assert len(batches) < 1500


async def test_cascades_within_async_calls() -> None:
    cascade = Cascade([("long", stage(Length(), top_n=3)), ("short", stage(Length(-1)))], time_budget=60)
    expected = cascade.rank("query", CANDIDATES)
    answers = await asyncio.gather(*(run_blocking(cascade.rank, "query", CANDIDATES) for _ in range(64)))
    assert answers == [expected] * 64


async def test_a_cancelled_task_ends_its_work() -> None:
    batches: list[int] = []
    cascade = Cascade([("slow", stage(Acting(batches_until_told(batches))))], time_budget=60)
    for work in (cascade, stage(Acting(batches_until_told(batches)))):
        batches.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run_blocking(work.rank, "query", CANDIDATES), 0.1)
        await asyncio.sleep(0.1)
        done = len(batches)
        await asyncio.sleep(0.1)
        assert 0 < done == len(batches)


def test_nothing_is_scored_for_nothing() -> None:
    scorer = Length()
    cascade = Cascade([("only", stage(scorer))], top_n=0)
    assert cascade.rank("query", CANDIDATES) == []
    assert Cascade([("only", stage(scorer))]).rank("query", []) == []
    assert rerank("query", TEXTS, Cascade([("only", stage(scorer))]), top_n=0) == []
    assert Cascade([("none", stage(scorer, threshold=99)), ("only", stage(scorer))]).rank("query", CANDIDATES) == []
    with pytest.raises(InvalidInputError, match="query"):
        cascade.rank(" ", [])


def test_several_queries() -> None:
    cascade = Cascade([("long", stage(Length(), top_n=2))])
    given = [CANDIDATES, [], CANDIDATES[:1]]
    assert cascade.rank_many(["a", "b", "c"], given) == [cascade.rank("q", each) for each in given]


def test_stages_that_read_other_forms() -> None:
    cascade = Cascade([("long", stage(Length(), top_n=3)), ("short", stage(Length(-1)))])
    titles = [Candidate(None, text * 2) for text in reversed(TEXTS)]
    ranked = cascade.rank_stages("query", [CANDIDATES, titles])
    assert [(one.place, one.score) for one in ranked] == [(2, -2.0), (3, -4.0), (0, -6.0)]
    for wrong in ([CANDIDATES], [CANDIDATES, titles, titles], [CANDIDATES, titles[:2]], []):
        with pytest.raises(InvalidInputError, match="expected the same candidates"):
            cascade.rank_stages("query", wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"stages": []}, "no stages"),
        ({"stages": [("a",)]}, "a stage is"),
        ({"stages": ["ab"]}, "a stage is"),
        ({"stages": [("a", Length())]}, "a stage is"),
        ({"stages": [("a", stage(Length())), ("a", stage(Length()))]}, "differ"),
        *(({"top_n": wrong}, "top_n") for wrong in (-1, True, 1.5)),
        *(({"time_budget": wrong}, "time_budget") for wrong in (0, -1, True, "1", float("nan"), float("inf"))),
    ],
)
def test_arguments_of_a_wrong_kind(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Cascade(**{"stages": [("only", stage(Length()))], **arguments})


def test_a_budget_longer_than_a_thread_can_wait() -> None:
    assert len(Cascade([("only", stage(Length()))], time_budget=1e300).rank("query", CANDIDATES)) == 4


@pytest.mark.parametrize("arguments", [{"threshold": 1.0}, {"window": 16}, {"strict": True}])
def test_what_belongs_to_the_stages(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="in its stages"):
        rerank("query", TEXTS, Cascade([("only", stage(Length()))]), **arguments)


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_process_that_ends_within_a_stage_ends_well() -> None:
    """A stage that ran out of time is still in torch, without the interpreter's lock, when the process ends."""
    code = """
import torch
from rerank_integrations import Cascade, Reranker
from rerank_integrations import Candidate, PlainScorer

class Slow:
    def score(self, query, texts):
        vectors = torch.ones(2500, 2500)
        for _ in range(3):
            vectors @ vectors
        return [0.0] * len(texts)

cascade = Cascade([("slow", Reranker(PlainScorer(Slow())))], time_budget=0.01)
print(cascade.rank("a query", [Candidate(None, "a text", None)])[0].place)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0", "")
