"""The caller's objects are after a call, byte for byte, as they were before; the results share nothing with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of, long_passages

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, Passage

COMPONENTS = [
    "colbert",
    "colbert with index",
    "colbert with windows",
    "cross-encoder",
    "cross-encoder with windows",
    "other text",
    "cascade",
    "cascade that stops",
]


class Broken:
    def score(self, query: str, texts: list[str]) -> list[float]:
        raise RuntimeError("out of order")


@pytest.fixture
def build(harness: Any, index: ColBERTIndex, colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "colbert": lambda: harness.colbert_rerank(model=colbert, top_n=4),
        "colbert with index": lambda: harness.colbert_rerank(model=colbert, index=index, top_n=4),
        "colbert with windows": lambda: harness.colbert_rerank(model=colbert, top_n=4, window=24),
        "cross-encoder": lambda: harness.cross_encoder_rerank(model=cross_encoder, top_n=4),
        "cross-encoder with windows": lambda: harness.cross_encoder_rerank(model=cross_encoder, top_n=4, window=24),
        "other text": lambda: harness.colbert_rerank(model=colbert, top_n=4, **harness.text_with_metadata),
        "broken": lambda: harness.cross_encoder_rerank(model=Broken()),
        "cascade": lambda: harness.cascade_rerank(stages=[made["colbert"](), made["cross-encoder"]()]),
        "cascade that stops": lambda: harness.cascade_rerank(stages=[made["colbert"](), made["broken"]()]),
    }
    return lambda name: made[name]()


@pytest.fixture(params=COMPONENTS)
def reranker(request: pytest.FixtureRequest, build: Any) -> Any:
    return build(request.param)


@pytest.fixture
def chosen(passages: list[Passage]) -> list[Passage]:
    return [*long_passages(passages, 2), *candidates_of(passages, 6)]


async def test_candidates_are_not_changed(harness: Any, reranker: Any, chosen: list[Passage]) -> None:
    candidates = harness.candidates(chosen)
    originals, before = list(candidates), harness.frozen(candidates)
    harness.rerank(reranker, candidates, QUERIES[0])
    await harness.arerank(reranker, candidates, QUERIES[1])
    harness.rerank(reranker, iter(candidates), QUERIES[0])
    assert harness.frozen(candidates) == before
    assert all(now is then for now, then in zip(candidates, originals, strict=True))


async def test_candidates_are_not_changed_by_errors(harness: Any, build: Any, chosen: list[Passage]) -> None:
    candidates = harness.candidates(chosen)
    before = harness.frozen(candidates)
    for name, query, error in (("broken", QUERIES[0], RuntimeError), ("cascade", " ", InvalidInputError)):
        with pytest.raises(error):
            harness.rerank(build(name), candidates, query)
        with pytest.raises(error):
            await harness.arerank(build(name), candidates, query)
    assert harness.frozen(candidates) == before


def test_candidates_that_were_reranked_before_are_not_changed(
    harness: Any, build: Any, reranker: Any, chosen: list[Passage]
) -> None:
    once = harness.results(build("cascade"), harness.candidates(chosen), QUERIES[0])
    before = harness.frozen(once)
    harness.rerank(reranker, once, QUERIES[1])
    assert harness.frozen(once) == before


def test_results_share_nothing_that_changes_with_what_was_given(
    harness: Any, build: Any, reranker: Any, chosen: list[Passage]
) -> None:
    once = harness.results(build("cascade"), harness.candidates(chosen), QUERIES[0])
    before = harness.frozen(once)
    for result in harness.results(reranker, once, QUERIES[1]):
        metadata = harness.metadata(result)
        metadata["tags"].append("changed")
        metadata["previous_rerank_scores"]["ColBERTRerank"] = None
        metadata.clear()
    assert harness.frozen(once) == before


def test_a_second_call_gives_what_the_first_gave(harness: Any, reranker: Any, chosen: list[Passage]) -> None:
    candidates = harness.candidates(chosen)
    first = harness.rerank(reranker, candidates, QUERIES[0])
    harness.rerank(reranker, candidates, QUERIES[1])
    assert harness.rerank(reranker, candidates, QUERIES[0]) == first


def test_a_second_reranking_keeps_the_notes_of_the_first(harness: Any, build: Any, chosen: list[Passage]) -> None:
    once = harness.results(build("cascade"), harness.candidates(chosen), QUERIES[0])
    twice = harness.results(build("cross-encoder"), once, QUERIES[0])
    first, second = ([harness.metadata(result) for result in results] for results in (once, twice))
    notes = {key for metadata in first for key in metadata} - {"year", "tags"}
    assert {"rerank_scores", "rerank_stage", "score_scale", "retrieval_rank"} <= notes
    assert len(second) == 4
    for metadata in second:
        before = first[metadata["retrieval_rank"] - 1]
        assert {key: metadata[f"previous_{key}"] for key in notes & set(before)} == {
            key: before[key] for key in notes & set(before)
        }
        # What the second has nothing to say of is not said of it.
        assert "rerank_scores" not in metadata
        assert (metadata["year"], metadata["tags"]) == (before["year"], before["tags"])
        assert json.dumps(metadata)
