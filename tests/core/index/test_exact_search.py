"""Exact search that scores many tokens in bfloat16 first, where the processor has it, gives the same hits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401 - without it no bfloat16
from numpy.typing import NDArray

from rerank_integrations import ColBERTIndex

DIM, PASSAGES, QUERIES = 128, 420, 12


class Given:
    """Encoder with given vectors: families of passages that differ by less than bfloat16's precision."""

    name, dim, fingerprint = "given", DIM, "given"

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        families = [random.normal(size=(64, DIM)) for _ in range(PASSAGES // 20)]
        self.vectors: dict[str, NDArray[np.float32]] = {}
        for number in range(PASSAGES):
            family = families[number % len(families)]
            rows = family[: 40 + number % 25] + random.normal(size=(40 + number % 25, DIM)) * 10.0 ** -(number % 6)
            self.vectors[f"p{number}"] = self._unit(rows)
        self.vectors["nothing"] = np.zeros((0, DIM), dtype=np.float32)
        for number in range(QUERIES):
            mixed = families[number][:18] + random.normal(size=(18, DIM)) * (0.3 if number % 2 else 2.0)
            self.vectors[f"q{number}"] = self._unit(mixed)

    @staticmethod
    def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self.vectors[text] for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[NDArray[np.float32]]:
        return [self.vectors[text] for text in texts]


@pytest.fixture(scope="module")
def given() -> Given:
    return Given()


@pytest.fixture(scope="module")
def index(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColBERTIndex]:
    names = [name for name in given.vectors if not name.startswith("q")]
    passages = [{"id": name, "text": name, "metadata": {"place": place}} for place, name in enumerate(names)]
    with ColBERTIndex.create(tmp_path_factory.mktemp("exact") / "index", given) as created:
        created.upsert(passages)
        created.delete(["p7", "p8"])
        assert created.stats().passages == PASSAGES - 1
        yield created


def expected(given: Given, query: str, names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the hits of brute force in float64 over the float16 vectors, ties by id."""
    asked = given.vectors[query].astype(np.float64)
    scores = []
    for name in names:
        rows = given.vectors[name].astype(np.float16).astype(np.float64)
        scores.append((name, float((asked @ rows.T).max(axis=1).sum()) if len(rows) else -float(len(asked))))
    return sorted(scores, key=lambda one: (-round(one[1], 5), one[0]))


def alive(given: Given) -> list[str]:
    return [name for name in given.vectors if not name.startswith("q") and name not in ("p7", "p8")]


@pytest.mark.parametrize("k", [1, 10, 100, PASSAGES])
def test_the_best_are_those_of_brute_force(given: Given, index: ColBERTIndex, k: int) -> None:
    for number in range(QUERIES):
        hits, wanted = index.search(f"q{number}", k), expected(given, f"q{number}", alive(given))[:k]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in wanted], atol=2e-5)
        assert len({hit.id for hit in hits}) == len(wanted)
        by_id = dict(expected(given, f"q{number}", alive(given)))
        np.testing.assert_allclose([hit.score for hit in hits], [by_id[hit.id] for hit in hits], atol=2e-5)


def test_with_a_filter_as_without_the_others(given: Given, index: ColBERTIndex) -> None:
    names = [name for place, name in enumerate(n for n in given.vectors if not n.startswith("q")) if place < 300]
    names = [name for name in names if name not in ("p7", "p8")]
    for number in range(QUERIES):
        hits = index.search(f"q{number}", 20, where={"place": {"$lt": 300}})
        wanted = expected(given, f"q{number}", names)[:20]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in wanted], atol=2e-5)


def test_several_queries_at_once_and_one_by_one(index: ColBERTIndex) -> None:
    queries = [f"q{number}" for number in range(QUERIES)]
    for found, query in zip(index.search_many(queries, 15), queries, strict=True):
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in index.search(query, 15)]
