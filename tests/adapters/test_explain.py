"""Each framework's ColBERT reranker explains as the core does."""

from __future__ import annotations

from typing import Any

import pytest

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Passage

QUERY = "read a zip file"


def test_a_candidate_is_explained(
    harness: Any, colbert: ColBERTModel, index: ColBERTIndex, passages: list[Passage]
) -> None:
    candidates = harness.candidates(passages[:2])
    before = harness.frozen(candidates)
    for reranker in (harness.colbert_rerank(model=colbert), harness.colbert_rerank(index=index)):
        for passage, candidate in zip(passages, candidates, strict=False):
            assert reranker.explain(QUERY, candidate) == colbert.explain(QUERY, passage.text)
    assert harness.frozen(candidates) == before


def test_an_empty_query_is_an_error(harness: Any, colbert: ColBERTModel, passages: list[Passage]) -> None:
    (candidate,) = harness.candidates(passages[:1])
    with pytest.raises(InvalidInputError, match="query is ''"):
        harness.colbert_rerank(model=colbert).explain("", candidate)
