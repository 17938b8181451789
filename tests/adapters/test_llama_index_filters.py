"""LlamaIndex filters mean here what they mean in LlamaIndex's own store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Passage
from rerank_integrations.llama_index import ColBERTRetriever

METADATA: dict[str, dict[str, Any]] = {
    "a": {"year": 2020, "price": 1.5, "city": "Rome", "tags": ["red", "blue"]},
    "b": {"year": 2021, "price": 2.0, "city": "Paris", "tags": ["blue"]},
    "c": {"year": 2022, "city": "Aachen", "tags": []},
    "d": {"year": 2022, "price": -3, "city": "", "tags": ["green", "red", "blue"]},
    "e": {"price": 2021, "city": None},
    "f": {},
    "g": {"mixed": ["", "a"]},
    "h": {"mixed": [None, 1]},
    "i": {"mixed": False},
    "j": {"mixed": {"a": None}},
    "k": {"mixed": 0},
    "l": {"mixed": []},
    "m": {"mixed": None},
}

OP = FilterOperator
SCALAR = [
    ("year", OP.EQ, 2022),
    ("city", OP.EQ, "Rome"),
    ("city", OP.EQ, ""),
    ("price", OP.EQ, 2),
    ("year", OP.NE, 2022),
    ("city", OP.NE, "Rome"),
    ("year", OP.GT, 2020),
    ("year", OP.GTE, 2021),
    ("year", OP.LT, 2022),
    ("price", OP.LTE, 1.5),
    ("year", OP.IN, [2020, 2022, 1999]),
    ("city", OP.IN, ["Rome", "Oslo"]),
    ("year", OP.NIN, [2020, 2022]),
    ("city", OP.NIN, ["Rome", ""]),
    ("absent", OP.NE, 1),
    ("absent", OP.GT, 1),
]
LISTS = [
    ("tags", OP.CONTAINS, "red"),
    ("tags", OP.CONTAINS, "none"),
    ("tags", OP.CONTAINS, "re"),
    ("city", OP.CONTAINS, "ar"),
    ("city", OP.CONTAINS, "AR"),
    ("city", OP.CONTAINS, ""),
    ("city", OP.ANY, ["om", "ach"]),
    ("city", OP.ALL, ["a", "ch"]),
    ("tags", OP.ANY, ["red", "green"]),
    ("tags", OP.ANY, ["none"]),
    ("tags", OP.ALL, ["red", "blue"]),
    ("tags", OP.ALL, ["blue"]),
    ("tags", OP.ALL, ["blue", "none"]),
]
# A list of nothing but blanks counts as empty here, not there; see docs/tutorials/llama_index.md.
EMPTY = [
    ("mixed", OP.IS_EMPTY, None),
    ("city", OP.IS_EMPTY, None),
    ("tags", OP.IS_EMPTY, None),
    ("year", OP.IS_EMPTY, None),
]


@pytest.fixture(scope="module")
def tagged(colbert: ColBERTModel) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert(Passage(name, f"Passage {name}.", metadata) for name, metadata in METADATA.items())
        yield index


def single_filter(key: str, operator: FilterOperator, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


def matching_ids(index: ColBERTIndex, filters: MetadataFilters) -> set[str]:
    return {
        item.node_id for item in ColBERTRetriever(index, similarity_top_k=50, filters=filters).retrieve("a passage")
    }


def expected(filters: MetadataFilters) -> set[str]:
    """Return the ids that LlamaIndex's own in-memory store finds."""
    matches = build_metadata_filter_fn(lambda name: METADATA[name], filters)
    return {name for name in METADATA if matches(name)}


@pytest.mark.parametrize(("key", "operator", "value"), SCALAR + LISTS + EMPTY)
def test_operator(tagged: ColBERTIndex, key: str, operator: FilterOperator, value: Any) -> None:
    filters = MetadataFilters(filters=[single_filter(key, operator, value)])
    assert matching_ids(tagged, filters) == expected(filters)


def test_every_operator_is_translated_or_refused(tagged: ColBERTIndex) -> None:
    translated = {operator for _, operator, _ in SCALAR + LISTS + EMPTY}
    refused = set(FilterOperator) - translated
    assert refused == {OP.TEXT_MATCH, OP.TEXT_MATCH_INSENSITIVE}
    for operator in refused:
        with pytest.raises(InvalidInputError, match=f"operator {operator.value!r} on 'city'"):
            ColBERTRetriever(tagged, filters=MetadataFilters(filters=[single_filter("city", operator, "Ro")]))


@pytest.mark.parametrize("condition", [*FilterCondition, None])
def test_conditions(tagged: ColBERTIndex, condition: FilterCondition | None) -> None:
    parts: list[Any] = [single_filter("year", OP.GTE, 2021), single_filter("city", OP.EQ, "Paris")]
    filters = MetadataFilters(filters=parts, condition=condition)
    assert matching_ids(tagged, filters) == expected(filters)


def test_nested(tagged: ColBERTIndex) -> None:
    paris_or_red = MetadataFilters(
        filters=[single_filter("city", OP.EQ, "Paris"), single_filter("tags", OP.CONTAINS, "red")],
        condition=FilterCondition.OR,
    )
    filters = MetadataFilters(filters=[single_filter("year", OP.GTE, 2021), paris_or_red])
    assert matching_ids(tagged, filters) == {"b", "d"}


def test_no_filters_match_all(tagged: ColBERTIndex) -> None:
    assert matching_ids(tagged, MetadataFilters(filters=[])) == set(METADATA)


@pytest.mark.parametrize("operator", [OP.EQ, OP.NE, OP.GT, OP.IN, OP.CONTAINS, OP.ALL])
def test_a_missing_value_is_refused(tagged: ColBERTIndex, operator: FilterOperator) -> None:
    with pytest.raises(InvalidInputError, match="is_empty"):
        ColBERTRetriever(tagged, filters=MetadataFilters(filters=[single_filter("city", operator, None)]))


@pytest.mark.parametrize("value", ["red", []])
def test_all_wants_a_list(tagged: ColBERTIndex, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a list"):
        ColBERTRetriever(tagged, filters=MetadataFilters(filters=[single_filter("tags", OP.ALL, value)]))
