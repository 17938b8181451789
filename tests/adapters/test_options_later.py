"""Options that are set on a component after it was constructed, on it or on a copy; arguments that are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, Passage

QUERY = QUERIES[0]
LATER: list[dict[str, Any]] = [
    {"top_n": 7},
    {"top_n": None},
    {"top_n": None, "score_threshold": 10.0},
    {"window": 8},
    {"window": 12, "stride": 3},
    {"scale": "mean"},
    {"max_candidates": 2},
    {"cache_bytes": 0},
]


@pytest.mark.parametrize("later", LATER, ids=str)
def test_what_is_set_later_is_as_if_it_was_given(
    harness: Any, colbert: ColBERTModel, passages: list[Passage], later: dict[str, Any]
) -> None:
    def notes_of(reranker: Any) -> Any:
        candidates = harness.candidates(candidates_of(passages))
        return [harness.noted(reranker, candidates, query) for query in (QUERY, QUERY)]

    expected = notes_of(harness.colbert_rerank(model=colbert, **{"top_n": 4, **later}))
    plain = notes_of(harness.colbert_rerank(model=colbert, top_n=4))
    changed = harness.colbert_rerank(model=colbert, top_n=4)
    if "cache_bytes" not in later:
        assert notes_of(harness.colbert_rerank(model=colbert, top_n=4).model_copy(update=later)) == expected
    for name, value in later.items():
        setattr(changed, name, value)
    assert notes_of(changed) == expected
    assert (plain == expected) == (later == {"top_n": 4})


def test_a_copy_does_not_change_what_it_is_of(harness: Any, colbert: ColBERTModel, passages: list[Passage]) -> None:
    candidates = harness.candidates(candidates_of(passages))
    reranker = harness.colbert_rerank(model=colbert, top_n=4, cache_bytes=0)
    before = harness.noted(reranker, candidates, QUERY)
    for other in (copy.copy(reranker), copy.deepcopy(reranker), reranker.model_copy()):
        assert harness.noted(other, candidates, QUERY) == before
        other.window, other.top_n, other.scale = 8, 2, "mean"
        assert harness.noted(other, candidates, QUERY) != before
        assert harness.noted(reranker, candidates, QUERY) == before


def test_options_of_a_cross_encoder_set_later(
    harness: Any, cross_encoder: CrossEncoderModel, passages: list[Passage]
) -> None:
    candidates = harness.candidates(candidates_of(passages))
    reranker = harness.cross_encoder_rerank(model=cross_encoder)
    reranker.top_n, reranker.window = 7, 8
    constructed = harness.cross_encoder_rerank(model=cross_encoder, top_n=7, window=8)
    assert harness.noted(reranker, candidates, QUERY) == harness.noted(constructed, candidates, QUERY)


def test_another_model_or_index_is_another_component(harness: Any, colbert: ColBERTModel, index: ColBERTIndex) -> None:
    reranker = harness.colbert_rerank(model=colbert)
    for name, value in (("model", "other"), ("index", index)):
        with pytest.raises(ValueError, match="frozen"):
            setattr(reranker, name, value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"top_n": -1}, "top_n is -1"),
    ({"top_n": "3"}, "top_n is '3'"),
    ({"score_threshold": "high"}, "threshold is 'high'"),
    ({"window": 3}, "window is 3"),
    ({"window": "16"}, "window is '16'"),
    ({"stride": 4}, "stride is 4 without a window"),
    ({"window": 16, "stride": 17}, "stride is 17"),
    ({"strict": "yes"}, "strict is 'yes'"),
    ({"scale": "max"}, "scale is 'max'"),
    ({"max_candidates": -1}, "max_candidates is -1"),
    ({"cache_bytes": -1}, "cache_bytes is -1"),
    ({"device": "meta"}, "device is 'meta' with a model on 'cpu'"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=str)
def test_wrong_options_are_refused_when_given_and_when_set(
    harness: Any, colbert: ColBERTModel, cross_encoder: CrossEncoderModel, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        harness.colbert_rerank(model=colbert, **wrong)
    if not {"scale", "cache_bytes"} & set(wrong):
        with pytest.raises(InvalidInputError, match=message):
            harness.cross_encoder_rerank(model=cross_encoder, **wrong)
    if "device" in wrong:
        return
    reranker = harness.colbert_rerank(model=colbert)
    for name, value in wrong.items():
        setattr(reranker, name, value)
    with pytest.raises(InvalidInputError, match=message):
        reranker.score(QUERY, ["a text"])


def test_arguments_that_do_not_go_together(harness: Any, index: ColBERTIndex, colbert: ColBERTModel) -> None:
    class Own:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [0.0 for _ in texts]

    with pytest.raises(InvalidInputError, match="device is 'cpu' without a model"):
        harness.colbert_rerank(index=index, device="cpu")
    with pytest.raises(InvalidInputError, match=r"window is 16.* with a scorer of type Own"):
        harness.cross_encoder_rerank(model=Own(), window=16)
    with pytest.raises(InvalidInputError, match="device is 'cpu' with a model on None"):
        harness.cross_encoder_rerank(model=Own(), device="cpu")
    for component in (harness.colbert_rerank, harness.cross_encoder_rerank):
        with pytest.raises(InvalidInputError, match="has no argument lenght; expected name_or_path"):
            component(model={"name_or_path": "any", "lenght": 3})
    with pytest.raises(InvalidInputError, match="strict is True with a scorer of type Own"):
        harness.rerank(
            harness.cross_encoder_rerank(model=Own(), strict=True), harness.candidates([Passage("a", "b")]), QUERY
        )


@pytest.mark.parametrize("case", ["candidate", "text", "none", "number", "among others"])
async def test_anything_but_a_list_of_candidates_is_refused(
    harness: Any, cross_encoder: CrossEncoderModel, colbert: ColBERTModel, passages: list[Passage], case: str
) -> None:
    candidate = harness.candidates(passages[:1])[0]
    wrong: dict[str, tuple[Any, str]] = {
        "candidate": (candidate, f"is one {type(candidate).__name__}; expected a list"),
        "text": ("some text", "is one str; expected a list"),
        "none": (None, "is one NoneType; expected a list"),
        "number": (3, "is one int; expected a list"),
        "among others": ([candidate, "some text"], "number 1 is of type str; expected"),
    }
    argument, message = wrong[case]
    reranker = harness.cross_encoder_rerank(model=cross_encoder)
    for component in (reranker, harness.cascade_rerank(stages=[harness.colbert_rerank(model=colbert), reranker])):
        with pytest.raises(InvalidInputError, match=message):
            harness.rerank(component, argument, QUERY)
        with pytest.raises(InvalidInputError, match=message):
            await harness.arerank(component, argument, QUERY)
