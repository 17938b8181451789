"""Small matrix products use one BLAS thread and leave the process's setting unchanged."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex
from rerank_integrations.core.concurrency.blas import one_thread


def blas_threads() -> set[int]:
    # NumPy's own: SciPy and others bring copies, some of them later.
    ours = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]]
    return {pool["num_threads"] for pool in ours}


@pytest.fixture(autouse=True)
def _blas_that_can_be_set() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    if not blas_threads():
        pytest.skip("the number of threads of this NumPy's BLAS cannot be read")


def test_one_thread_inside_and_what_was_outside() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        with one_thread(), one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == before
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert blas_threads() == before


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_overlapping_uses_put_back_what_was(order: list[int]) -> None:
    """The order of entering and leaving does not matter, nor which thread looks."""
    before = blas_threads()
    entered = [threading.Event() for _ in order]
    leave = [threading.Event() for _ in order]

    def inside(number: int) -> set[int]:
        with one_thread():
            entered[number].set()
            leave[number].wait(10)
            return blas_threads()

    with ThreadPoolExecutor(len(order)) as pool:
        running = []
        for number in range(len(order)):
            running.append(pool.submit(inside, number))
            assert entered[number].wait(10)
        assert blas_threads() == {1}
        for number in order:
            leave[number].set()
            running[number].result(10)
    assert blas_threads() == before


def test_searching_leaves_the_threads_as_they_were() -> None:
    before = blas_threads()
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([f"text number {number}" for number in range(50)])
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: index.search("text", 50), range(40)))
        assert all(answer == answers[0] for answer in answers)
    assert blas_threads() == before
