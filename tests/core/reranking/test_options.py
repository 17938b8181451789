"""`RerankOptions` is checked where it is made, and a component's reranker follows the component's fields."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder

from rerank_integrations import Candidate, ColBERTRerankOptions, InvalidInputError, Reranker, RerankOptions
from rerank_integrations.core.reranking.components import COLBERT, CROSS_ENCODER, CachedReranker
from rerank_integrations.core.reranking.options import ColBERTRerankArguments, RerankArguments


class Lengths:
    """Scores a text by its length."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_n": -1}, "top_n is -1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"strict": 1}, "strict is 1; expected True or False"),
        ({"max_candidates": 2.5}, "max_candidates is 2.5"),
        ({"scale": "max"}, "scale is 'max'; expected 'sum' or 'mean'"),
        ({"cache_bytes": True}, "cache_bytes is True"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ColBERTRerankOptions(**wrong)


def test_a_wrong_window_is_refused_once_it_is_used() -> None:
    # A scorer that has no windows says so before a window's size matters.
    for wrong in (RerankOptions(window=3), RerankOptions(stride=4)):
        with pytest.raises(InvalidInputError, match=r"window is 3|stride is 4 without a window"):
            _ = wrong.windows


def test_numbers_are_those_of_python_and_the_value_is_frozen() -> None:
    options = RerankOptions(top_n=np.int64(3), threshold=np.float32(0.5), max_candidates=np.int32(7))  # type: ignore[arg-type]
    assert [type(value) for value in (options.top_n, options.threshold, options.max_candidates)] == [int, float, int]
    with pytest.raises(FrozenInstanceError):
        options.top_n = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [(RerankOptions, RerankArguments), (ColBERTRerankOptions, ColBERTRerankArguments)],
)
def test_a_component_has_an_argument_for_every_option(options: type[RerankOptions], arguments: Any) -> None:
    names = {"score_threshold" if item.name == "threshold" else item.name for item in fields(options)}
    # Each framework has a default of its own for top_n, and writes scores into its own kind of metadata.
    assert names - {"top_n"} == set(arguments.__annotations__) - {"scores_in_metadata"}


def test_options_are_read_from_the_fields_of_a_component() -> None:
    values = {"score_threshold": 0.5, "window": 16, "text_fn": None, "model": object()}
    assert RerankOptions.from_component(values) == RerankOptions(threshold=0.5, window=16)


def test_the_reranker_is_another_only_if_a_field_is() -> None:
    component: dict[str, Any] = {"model": Lengths(), "top_n": 2, "text_fn": None}
    cached = CachedReranker(CROSS_ENCODER, component)
    assert cached.matching({**component, "text_fn": str}) is cached
    other = cached.matching({**component, "top_n": 1})
    candidates = [Candidate(None, text) for text in ("a", "bbb", "cc")]
    assert [
        [ranked.place for ranked in reranker.rank("query", candidates)]
        for reranker in (cached.reranker, other.reranker)
    ] == [[1, 2], [1]]


def test_cached_vectors_outlive_a_change_that_does_not_concern_them() -> None:
    component: dict[str, Any] = {"model": ToyEncoder(), "index": None, "top_n": 2}
    cached = CachedReranker(COLBERT, component)

    def source(reranker: Reranker) -> str:
        return reranker.rank("rain", [Candidate(None, "rain and wind")])[0].note["vectors_from"]

    assert source(cached.reranker) == "encoded"
    assert source(cached.matching({**component, "top_n": 1}).reranker) == "cached"
    for change in ({"scale": "mean"}, {"cache_bytes": 0}, {"model": ToyEncoder()}):
        assert source(cached.matching({**component, **change}).reranker) == "encoded"
