"""One model under many threads gives the answers of one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from close_to import close_to
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES

from rerank_integrations import ColBERTModel, CrossEncoderModel

pytestmark = pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")

JOBS = 192
LONG = [" ".join(ENGLISH[start : start + 6]) for start in range(0, 60, 6)]  # 60 to 90 tokens
SHORT = [*QUERIES, *CHINESE[:3]]


@pytest.fixture(autouse=True)
def one_kernel_thread() -> Iterator[None]:
    """Limit torch to one thread: else 32 threads compete with as many pools of torch's, and the tests take minutes."""
    kernels = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kernels)


def run_together(jobs: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Run the jobs on `threads` threads that start together; return results in the order of the jobs."""
    start = threading.Barrier(threads)
    with ThreadPoolExecutor(threads, initializer=start.wait) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def mixed_jobs(encode_queries: Callable[..., Any], encode_documents: Callable[..., Any]) -> list[Callable[[], Any]]:
    """Return jobs that encode short queries and long documents in turns."""
    jobs: list[Callable[[], Any]] = []
    for turn in range(JOBS):
        short, long = SHORT[turn % len(SHORT)], LONG[turn % len(LONG)]
        jobs.append(
            (lambda text=short: encode_queries([text])) if turn % 2 else (lambda text=long: encode_documents([text]))
        )
    return jobs  # fmt: skip


def wrong(serial: Sequence[Any], together: Sequence[Any]) -> int:
    return sum(not close_to(ours, expected) for ours, expected in zip(together, serial, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["colbert_dir", "stanford_dir", "pylate_dir"])
def test_queries_and_documents_from_eight_threads_equal_serial_ones(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(checkpoint)
    model = ColBERTModel(path, dtype="float32", device="cpu", query_length=32)
    jobs = mixed_jobs(model.encode_queries, model.encode_documents)
    serial = [job() for job in jobs]
    assert wrong(serial, run_together(jobs, threads=8)) == 0


@pytest.mark.slow
def test_without_our_lock_the_encoder_below_gets_it_wrong(stanford_dir: Path) -> None:
    """The lock is needed. If this fails, sentence-transformers has become thread-safe, and the lock may go."""
    from sentence_transformers import MultiVectorEncoder

    encoder = MultiVectorEncoder(str(stanford_dir), device="cpu")
    jobs = mixed_jobs(
        lambda texts: encoder.encode_query(texts, convert_to_numpy=True),
        lambda texts: encoder.encode_document(texts, convert_to_numpy=True),
    )

    def attempt(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except Exception as error:  # the tokenizer may also refuse: "Already borrowed"
            return [np.array([hash(type(error))])]

    serial = [job() for job in jobs]
    mistakes = sum(wrong(serial, run_together([lambda j=j: attempt(j) for j in jobs], threads=8)) for _ in range(3))
    assert mistakes > 0


@pytest.mark.slow
def test_thirty_two_threads_score_on_one_colbert_model(colbert: ColBERTModel) -> None:
    jobs = [lambda query=query: colbert.score(query, [*LONG, *CHINESE]) for query in QUERIES] * 4
    serial = [job() for job in jobs]
    assert close_to(run_together(jobs, threads=32), serial)


@pytest.mark.slow
def test_thirty_two_threads_score_on_one_cross_encoder(cross_encoder_dir: Path) -> None:
    short = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu", max_length=24)
    whole = CrossEncoderModel(cross_encoder_dir, dtype="float32", device="cpu")
    texts = [*LONG[:5], *CHINESE]
    pairs = [(query, model) for query in QUERIES for model in (short, whole)]
    jobs = [lambda query=query, model=model: model.score(query, texts) for query, model in pairs] * 2
    serial = [job() for job in jobs]
    assert serial[0] != serial[1]
    assert close_to(run_together(jobs, threads=32), serial)


@pytest.mark.slow
def test_explaining_beside_encoding_is_undisturbed(stanford_dir: Path) -> None:
    model = ColBERTModel(stanford_dir, dtype="float32", device="cpu")
    brief = ColBERTModel(stanford_dir, dtype="float32", device="cpu", document_length=12, query_length=8)
    jobs: list[Callable[[], Any]] = []
    for turn in range(16):
        text, query = LONG[turn % len(LONG)], SHORT[turn % len(SHORT)]
        jobs.append(lambda text=text, query=query: model.explain(query, text))
        jobs.append(lambda text=text, query=query: brief.score(query, [text]))
        jobs.append(lambda text=text, query=query: model.score(query, [text, LONG_TEXT]))
    serial = [job() for job in jobs]
    assert close_to(run_together(jobs, threads=8), serial)


@pytest.mark.slow
def test_a_model_unloaded_while_others_use_it_still_answers(colbert_dir: Path) -> None:
    model = ColBERTModel(colbert_dir, dtype="float32", device="cpu", batch_size=8)
    expected = model.score(QUERIES[0], LONG)
    jobs: list[Callable[[], Any]] = [lambda: model.score(QUERIES[0], LONG)] * 20
    jobs[5] = jobs[12] = model.unload
    answers = run_together(jobs, threads=4)
    assert close_to([answer for answer in answers if answer is not None], [expected] * 18)
