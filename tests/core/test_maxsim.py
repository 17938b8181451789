"""MaxSim, compared with its definition, token by token in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rerank_integrations.core.maxsim import maxsim, maxsim_block, maxsim_many

Floats = NDArray[np.float32]


def unit_rows(random: np.random.Generator, rows: int, dim: int) -> Floats:
    drawn = random.normal(size=(rows, dim)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def naive(query: Floats, passage: Floats) -> float:
    total = 0.0
    for asked in query:
        total += max(sum(float(a) * float(b) for a, b in zip(asked, token, strict=True)) for token in passage)
    return total


@given(
    seed=st.integers(0, 2**32 - 1),
    asked=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    dim=st.sampled_from([1, 3, 16, 128]),
)
@settings(max_examples=60, deadline=None)
def test_every_way_to_compute_it_agrees(seed: int, asked: int, lengths: list[int], dim: int) -> None:
    random = np.random.default_rng(seed)
    query = unit_rows(random, asked, dim)
    passages = [unit_rows(random, length, dim) for length in lengths]
    expected = [naive(query, passage) for passage in passages]
    assert maxsim_many(query, passages) == pytest.approx(expected, abs=1e-5)
    assert [maxsim(query, passage) for passage in passages] == maxsim_many(query, passages)
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    block = maxsim_block(query, np.concatenate(passages), starts)
    assert block.shape == (len(passages),)
    assert block.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_score_depends_on_the_two_arrays_alone() -> None:
    """Memory, neighbours and the half precision file that the arrays came from do not change the score."""
    random = np.random.default_rng(0)
    query = unit_rows(random, 32, 128)
    for length in (1, 2, 7, 16, 33, 180):
        passage = unit_rows(random, length, 128).astype(np.float16)
        alone = maxsim(query, passage.astype(np.float32))
        for before in (0, 1, 3, 17):
            around = np.concatenate([unit_rows(random, before, 128).astype(np.float16), passage, passage[:1]])
            view = around[before : before + length]
            assert maxsim(query, view.astype(np.float32)) == alone
            wide = np.concatenate([unit_rows(random, before, 128), passage.astype(np.float32)])
            assert maxsim(query, wide[before:]) == alone
            assert maxsim(query, np.asfortranarray(passage.astype(np.float32))) == alone


def test_a_passage_without_tokens_scores_below_all_others() -> None:
    random = np.random.default_rng(3)
    query = unit_rows(random, 5, 4)
    assert maxsim(query, np.empty((0, 4), np.float32)) == -5.0
    assert maxsim(query, -query[:1]) >= -5.0


def test_a_query_without_tokens_scores_nothing() -> None:
    random = np.random.default_rng(3)
    none = np.empty((0, 4), np.float32)
    assert maxsim(none, unit_rows(random, 3, 4)) == 0.0
    assert maxsim(none, none) == 0.0
    assert maxsim_many(none, []) == []
    assert maxsim_block(none, unit_rows(random, 3, 4), np.array([0, 2])).tolist() == [0.0, 0.0]
