"""Relevances from 0 to 1 and maximal marginal relevance, against a reference that knows every pair of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError
from rerank_integrations.core.reranking.relevance import (
    diverse_order,
    search_diverse,
    search_with_relevance,
    similarity,
)

WORDS = ["red", "green", "blue", "fox", "frog", "whale"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
LIBRARY = {"a": "red fox", "b": "red fox jumps", "c": "blue whale", "d": "", "e": "red whale"}


@pytest.fixture(scope="module")
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as created:
        created.upsert({"id": key, "text": text, "metadata": {"key": key}} for key, text in LIBRARY.items())
        yield created


def naive_similarity(first: Any, second: Any) -> float:
    def mean(rows: Any, columns: Any) -> float:
        return float(np.mean([max(float(row @ column) for column in columns) for row in rows]))

    return (mean(first, second) + mean(second, first)) / 2


def naive_order(relevances: Sequence[float], vectors: Sequence[Any], k: int, weight: float) -> list[int]:
    chosen = [max(range(len(vectors)), key=lambda position: relevances[position])]
    while len(chosen) < min(k, len(vectors)):
        values = {
            position: weight * relevances[position]
            - (1 - weight) * max(naive_similarity(vectors[position], vectors[other]) for other in chosen)
            for position in range(len(vectors))
            if position not in chosen
        }
        chosen.append(max(values, key=lambda position: values[position]))
    return chosen


@given(texts=st.lists(TEXTS, min_size=1, max_size=6, unique=True), k=st.integers(1, 6), weight=st.floats(0, 1))
def test_the_order_is_that_of_the_definition(texts: list[str], k: int, weight: float) -> None:
    vectors = ToyEncoder().encode_documents(texts)
    # Apart from each other, so that no rounding decides.
    relevances = [1 / (number + 1.37) for number in range(len(texts))]
    order, expected = diverse_order(relevances, vectors, k, weight), naive_order(relevances, vectors, k, weight)
    assert len(order) == len(set(order)) == len(expected)
    values = [_value(chosen, relevances, vectors, weight) for chosen in (order, expected)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def _value(order: list[int], relevances: list[float], vectors: Sequence[Any], weight: float) -> float:
    """Return what the first choice that may differ is worth: the second."""
    if len(order) < 2:
        return relevances[order[0]]
    return weight * relevances[order[1]] - (1 - weight) * naive_similarity(vectors[order[0]], vectors[order[1]])


def test_similarity_is_symmetric_and_bounded() -> None:
    fox, whale, nothing = ToyEncoder().encode_documents(["red fox", "blue whale swims", ""])
    assert similarity(fox, fox) == pytest.approx(1.0)
    assert similarity(fox, whale) == similarity(whale, fox) == pytest.approx(naive_similarity(fox, whale), abs=1e-6)
    assert (similarity(fox, nothing), similarity(nothing, fox), similarity(nothing, nothing)) == (-1.0, -1.0, 1.0)


def test_relevance_is_the_mean_over_the_querys_tokens(index: ColBERTIndex) -> None:
    for query in ("red fox", "red fox jumps whale", "!"):
        results = search_with_relevance(index, query, 5)
        assert [hit for hit, _ in results] == index.search(query, 5)
        tokens = len(ToyEncoder().encode_queries([query])[0])
        for hit, relevance in results:
            assert type(relevance) is float
            assert relevance == (min(1.0, max(0.0, hit.score / tokens)) if tokens else 0.0)
    assert search_with_relevance(index, "red fox", 1)[0][1] == pytest.approx(1.0, abs=1e-3)
    assert {hit.id: relevance for hit, relevance in search_with_relevance(index, "red fox", 5)}["d"] == 0.0
    assert search_with_relevance(index, " ", 5) == []


def test_a_filter_applies_before_both(index: ColBERTIndex) -> None:
    where = {"key": {"$in": ["c", "e"]}}
    assert {hit.id for hit, _ in search_with_relevance(index, "red fox", 5, where=where)} == {"c", "e"}
    hits = search_diverse(index, "red fox", 5, fetch_k=5, lambda_mult=0.5, where=where)
    assert {hit.id for hit in hits} == {"c", "e"}


def test_a_near_copy_gives_way_to_another_passage(index: ColBERTIndex) -> None:
    assert [hit.id for hit in index.search("red fox", 2)] == ["a", "b"]
    diverse = search_diverse(index, "red fox", 2, fetch_k=5, lambda_mult=0.3)
    assert diverse[0].id == "a"
    assert diverse[1].id != "b"
    assert search_diverse(index, "red fox", 5, fetch_k=1, lambda_mult=1) == index.search("red fox", 5)
    assert search_diverse(index, "red fox", 0, fetch_k=5, lambda_mult=0.5) == []
    assert search_diverse(index, " ", 3, fetch_k=5, lambda_mult=0.5) == []


@pytest.mark.parametrize(
    "arguments", [{"lambda_mult": 1.1}, {"lambda_mult": float("nan")}, {"lambda_mult": "1"}, {"fetch_k": -1}, {"k": -1}]
)
def test_bad_arguments_are_refused(index: ColBERTIndex, arguments: dict[str, Any]) -> None:
    options = {"k": 2, "fetch_k": 5, "lambda_mult": 0.5, **arguments}
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        search_diverse(index, "red", **options)


def test_stored_vectors_are_those_that_the_search_scores(index: ColBERTIndex) -> None:
    vectors = index.stored_vectors(["a", "d", "unknown"])
    assert {key: len(rows) for key, rows in vectors.items()} == {"a": 2, "d": 0}
    np.testing.assert_allclose(vectors["a"], ToyEncoder().encode_documents(["red fox"])[0], atol=1e-3)
    assert index.stored_vectors([]) == {}
    query = index.encode_query("red fox")
    assert index.search_encoded(query, 3) == index.search("red fox", 3)
    assert index.search_encoded(query, 0) == []
    some = list(index.ids())[1:3]
    assert index.search_encoded(query, 3, ids=some) == index.search("red fox", 3, ids=some)
    assert index.search_encoded(query.tolist(), 3) == index.search("red fox", 3)
    for wrong in (query[0], query[:, :3], query * np.nan, "red fox", None):
        with pytest.raises(InvalidInputError, match="for the query"):
            index.search_encoded(wrong, 3)


def test_stored_vectors_of_a_compressed_index() -> None:
    encoder = ToyEncoder()
    with ColBERTIndex.create(None, encoder, nbits=4) as index:
        index.upsert({"id": f"p{number}", "text": f"w{number % 50} w{number % 7} fox"} for number in range(4200))
        assert index.stats().kind == "plaid"
        vectors = index.stored_vectors(["p1", "p4199"])
        exact = encoder.encode_documents(["w1 w1 fox", f"w{4199 % 50} w{4199 % 7} fox"])
        for rows, expected in zip((vectors["p1"], vectors["p4199"]), exact, strict=True):
            assert rows.shape == expected.shape
            assert (rows * expected).sum(axis=1).min() > 0.9
        query = encoder.encode_queries(["w1 fox"])[0]
        (hit,) = index.score_stored(query, ["p1"]).values()
        assert hit.score == pytest.approx(sum((query @ vectors["p1"].T).max(axis=1)), abs=0.02)
