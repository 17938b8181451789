"""MaxSim in bfloat16 stays within a bound of the exact score that holds on any processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # noqa: F401 - what multiplies
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rerank_integrations.core.index import exact
from rerank_integrations.core.index.storage.segments import FloatSegment, Part


def part_of(lengths: list[int], dim: int, scale: float, seed: int) -> Part[FloatSegment]:
    random = np.random.default_rng(seed)
    tokens = (random.normal(size=(sum(lengths), dim)) * scale).astype(np.float16)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    every = np.arange(len(lengths))
    return Part(FloatSegment("given", tokens, offsets), every.astype(np.int64), every.astype(np.int32), len(tokens))


def true_scores(part: Part[FloatSegment], query: NDArray[Any]) -> NDArray[np.float64]:
    asked = query.astype(np.float64)
    passages = [part.segment.vectors(ordinal).astype(np.float64) for ordinal in part.ordinals]
    return np.array([(asked @ rows.T).max(axis=1).sum() if len(rows) else -float(len(asked)) for rows in passages])


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    query_tokens=st.integers(1, 40),
    dim=st.sampled_from([8, 128]),
    scale=st.sampled_from([1e-2, 0.1, 1.0, 30.0]),
    seed=st.integers(0, 10_000),
)
def test_no_score_is_further_off_than_the_bound(
    lengths: list[int], query_tokens: int, dim: int, scale: float, seed: int
) -> None:
    part = part_of([*lengths, 3], dim, scale, seed)
    query = np.random.default_rng(seed + 1).normal(size=(query_tokens, dim)).astype(np.float32)
    found, bound = exact.rounded_scores(part, query)
    assert np.abs(found - true_scores(part, query)).max() <= bound
    # A bound that bounds nothing would be true too.
    assert bound < 0.05 * float(
        np.linalg.norm(query, axis=1).sum() * np.linalg.norm(part.segment.tokens.astype(np.float32), axis=1).max()
    )


def test_more_products_than_are_held_at_once() -> None:
    part = part_of([500, 0, 0, 640, 1, 700, 0, 31] * 120, 8, 1.0, 3)
    query = np.random.default_rng(5).normal(size=(64, 8)).astype(np.float32)
    found, bound = exact.rounded_scores(part, query)
    assert np.abs(found - true_scores(part, query)).max() <= bound
