"""What the caller passes in is, after the call, byte for byte what it was."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.rows import candidates_of
from corpus import QUERIES

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage


@pytest.fixture(params=["colbert", "colbert with index", "cross-encoder"])
def reranker(
    request: pytest.FixtureRequest,
    harness: Any,
    index: ColBERTIndex,
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
) -> Any:
    if request.param == "cross-encoder":
        return harness.cross_encoder_rerank(model=cross_encoder, top_n=4)
    return harness.colbert_rerank(model=colbert, index=index if "index" in request.param else None, top_n=4)


async def test_candidates_are_not_changed(harness: Any, reranker: Any, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    given, before = list(candidates), harness.frozen(candidates)
    harness.rerank(reranker, candidates, QUERIES[0])
    await harness.arerank(reranker, candidates, QUERIES[1])
    assert harness.frozen(candidates) == before
    assert all(now is then for now, then in zip(candidates, given, strict=True))


def test_a_second_call_gives_what_the_first_gave(harness: Any, reranker: Any, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    first = harness.rerank(reranker, candidates, QUERIES[0])
    harness.rerank(reranker, candidates, QUERIES[1])
    assert harness.rerank(reranker, candidates, QUERIES[0]) == first
