"""The package's own threads leave torch's number of threads unchanged for everybody else."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rerank_integrations.core.concurrency.cores import in_parallel, on_compute_thread, side_by_side

FIRST_AT_ONCE = """
import os, sys, threading
import numpy as np
import torch
from rerank_integrations import ColBERTModel
torch.set_num_threads(3)
model = ColBERTModel(sys.argv[1], device="cpu")
start, found = threading.Barrier(8), []
def ask():
    start.wait()
    found.append(model.encode_queries(["a short query"])[0])
callers = [threading.Thread(target=ask) for _ in range(8)]
[caller.start() for caller in callers]
[caller.join() for caller in callers]
counts = [torch.get_num_threads()]
late = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
late.start()
late.join()
assert counts == [3, 3], counts
assert len(found) == 8 and all(np.array_equal(one, found[0]) for one in found)
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.encode_queries(["a short query"])[0], found[0]) else 3)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_eight_first_queries_at_once_and_one_of_a_forked_child(colbert_dir: Path) -> None:
    command = [sys.executable, "-c", FIRST_AT_ONCE, str(colbert_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_thread_keeps_nothing_of_work_that_is_done() -> None:
    """A reference left in a waiting thread would let weights outlast `unload`."""

    class Features:
        pass

    for _ in range(500):
        features = Features()
        gone = weakref.ref(features)
        on_compute_thread("query", functools.partial(id, features))
        del features
        assert gone() is None


def test_work_side_by_side_gives_its_results_in_order() -> None:
    def late(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number

    works = [functools.partial(late, number) for number in range(30)]
    assert list(in_parallel(works)) == list(range(30))
    assert list(in_parallel([])) == []


def test_side_by_side_as_many_at_once_as_there_are_threads() -> None:
    at_once = side_by_side()
    meeting = threading.Barrier(at_once, timeout=60)
    assert len(list(in_parallel([meeting.wait] * (3 * at_once)))) == 3 * at_once


def test_after_a_failure_nothing_is_begun_and_nothing_is_left_at_work() -> None:
    taken, ended = [], []

    def works() -> Iterator[Callable[[], None]]:
        for number in range(100):
            taken.append(number)
            yield functools.partial(work, number)

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("the third")
        time.sleep(0.01)
        ended.append(number)

    with pytest.raises(ValueError, match="the third"):
        list(in_parallel(works()))
    assert len(taken) <= 4 + side_by_side() + 1
    before = list(ended)
    time.sleep(0.1)
    assert ended == before
