"""Small matrix products take one BLAS thread, and leave the caller's setting as it was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex
from rerank_integrations.core.blas import one_thread


def blas_threads() -> set[int]:
    # NumPy's own: SciPy and others bring copies, some of them later.
    ours = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]]
    return {pool["num_threads"] for pool in ours}


@pytest.fixture(autouse=True)
def _blas_that_can_be_set() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    if not blas_threads():
        pytest.skip("the number of threads of this NumPy's BLAS cannot be read")


def test_nested_and_overlapping_uses_put_back_what_was() -> None:
    entered, leave = threading.Barrier(5), threading.Event()

    def inside() -> set[int]:
        with one_thread, one_thread:
            entered.wait(10)
            leave.wait(10)
            return blas_threads()

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(inside) for _ in range(4)]
            entered.wait(10)
            assert blas_threads() == {1}
            leave.set()
            assert all(future.result(10) == {1} for future in running)
        assert blas_threads() == before
        with pytest.raises(KeyError), one_thread:
            raise KeyError
        assert blas_threads() == before


def test_searching_leaves_the_callers_threads() -> None:
    with threadpool_limits(limits=2, user_api="blas"), ColBERTIndex.create(None, ToyEncoder()) as index:
        before = blas_threads()
        index.upsert([f"text number {number}" for number in range(50)])
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: index.search("text", 50), range(40)))
        assert all(answer == answers[0] for answer in answers)
        assert blas_threads() == before
