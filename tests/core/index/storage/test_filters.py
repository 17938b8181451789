"""Filters, compared with a Python predicate that follows MongoDB's definition of each operator."""

from __future__ import annotations

import enum
import math
import operator
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError, Passage

MISSING = object()
COMPARISONS = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}


def matches(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether MongoDB would match this metadata, without its look-up inside lists."""
    return all(_clause(metadata, key, value) for key, value in where.items())


def _clause(metadata: Mapping[str, Any], key: str, value: Any) -> bool:
    if key == "$and":
        return all(matches(metadata, part) for part in value)
    if key == "$or":
        return any(matches(metadata, part) for part in value)
    if key == "$not":
        return not matches(metadata, value)
    stored = list(_fields(metadata, key))
    conditions = value if isinstance(value, dict) else {"$eq": value}
    return all(_condition(stored, name, wanted) for name, wanted in conditions.items())


def _fields(stored: Any, key: str) -> Iterator[Any]:
    """Yield every value that `key` may mean: a dot separates two names or is part of one."""
    for name, value in stored.items() if isinstance(stored, dict) else ():
        if name == key:
            yield value
        elif key.startswith(f"{name}."):
            yield from _fields(value, key.removeprefix(f"{name}."))


def _condition(stored: list[Any], name: str, wanted: Any) -> bool:
    if name == "$exists":
        return bool(stored) == wanted
    if name == "$not":
        return not all(_condition(stored, inner, value) for inner, value in wanted.items())
    if name == "$ne":
        return not _condition(stored, "$eq", wanted)
    if name == "$nin":
        return not _condition(stored, "$in", wanted)
    if name == "$contains":
        has_part = [isinstance(value, str) and isinstance(wanted, str) and wanted in value for value in stored]
        return any(has_part) or _condition(stored, "$eq", wanted)
    if name == "$in":
        return any(_condition(stored, "$eq", value) for value in wanted)
    items = [item for value in stored or [MISSING] for item in (value if isinstance(value, list) else [value])]
    if name == "$eq":
        return any(_kind(item) == _kind(wanted) and item in (wanted, MISSING) for item in items)
    return any(_kind(item) == _kind(wanted) and COMPARISONS[name](item, wanted) for item in items)


def _kind(value: Any) -> str:
    if value is None or value is MISSING:
        return "null"
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else type(value).__name__


NAMES = ["a", "b", "c d", "ü", "back\\slash", "tab\t", "0", "[0]", "a.b", "b.c d", "$"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e300, -1.5, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**62)]),
    st.sampled_from(["", "a", "b", "B", "1", "0", "true", "null", "é", "e\u0301", "😀", "a b", "'", '"', "%", "\\"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)
METADATA = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)

FIELDS = st.sampled_from([*NAMES[:-1], "a.b", "a.a", "b.c d", "a.b.ü", "a.b.a.b", "a.0", "nowhere"])
ORDERED = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
MEMBERS = st.lists(SCALARS, max_size=4)
PLAIN_CONDITIONS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), SCALARS),
    st.tuples(st.sampled_from(list(COMPARISONS)), ORDERED),
    st.tuples(st.sampled_from(["$in", "$nin"]), MEMBERS),
    st.tuples(st.just("$contains"), SCALARS.filter(lambda value: value is not None)),
    st.tuples(st.just("$exists"), st.booleans()),
)
CONDITIONS = st.lists(PLAIN_CONDITIONS, min_size=1, max_size=2).map(dict)
NEGATED = st.fixed_dictionaries({"$not": CONDITIONS})
FIELD_FILTERS = st.dictionaries(FIELDS, SCALARS | CONDITIONS | NEGATED, max_size=2)
FILTERS = st.recursive(
    FIELD_FILTERS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    ),
    max_leaves=5,
)


def found(index: ColBERTIndex, where: Mapping[str, Any]) -> set[str]:
    return {hit.id for hit in index.search("text", 10_000, where=where)}


@given(metadata=st.lists(METADATA, min_size=1, max_size=25), filters=st.lists(FILTERS, min_size=10, max_size=40))
@example(
    metadata=[{}, {"a": None}, {"a": []}, {"a": {}}, {"a": [None]}, {"a": {"b": None}}, {"a": [[]]}, {"a": 0}],
    filters=[{"a": None}, {"a": {"$ne": None}}, {"a": {"$in": [None, 1]}}, {"a": {"$nin": [None]}}, {"a.b": None}],
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_a_filter_keeps_what_mongodb_would(metadata: list[dict[str, Any]], filters: list[dict[str, Any]]) -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        ColBERTIndex.create(Path(folder) / "index", ToyEncoder()) as index,
    ):
        index.upsert(Passage(f"p{number}", "text", one) for number, one in enumerate(metadata))
        for where in filters:
            assert found(index, where) == {
                f"p{number}" for number, one in enumerate(metadata) if matches(one, where)
            }, where


# --- by hand ---


@pytest.fixture(scope="module")
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(
            [
                Passage("new", "text", {"year": 2024, "lang": "en", "tags": ["tax", "law"], "draft": False}),
                Passage("old", "text", {"year": 1999.5, "lang": "de", "tags": [], "author": {"name": "Ada"}}),
                Passage("odd", "text", {"year": "2024", "lang": None, "draft": 0, "tags": "tax"}),
                Passage("bare", "text"),
            ]
        )
        yield index


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({}, "new old odd bare"),
        ({"year": 2024}, "new"),
        ({"year": 2024.0}, "new"),
        ({"year": "2024"}, "odd"),
        ({"year": {"$gte": 1999.5}}, "new old"),
        ({"year": {"$gt": 1999.5, "$lt": 3000}}, "new"),
        ({"year": {"$lt": "3"}}, "odd"),
        ({"lang": {"$ne": "en"}}, "old odd bare"),
        ({"lang": {"$in": ["en", "de", "fr"]}}, "new old"),
        ({"lang": {"$in": {"en"}}}, "new"),
        ({"lang": {"$in": []}}, ""),
        ({"lang": {"$nin": []}}, "new old odd bare"),
        ({"lang": {"$nin": ["en", None]}}, "old"),
        ({"lang": None}, "odd bare"),
        ({"lang": {"$exists": True}}, "new old odd"),
        ({"lang": {"$exists": False}}, "bare"),
        ({"draft": False}, "new"),
        ({"draft": 0}, "odd"),
        ({"tags": "tax"}, "new odd"),
        ({"tags": {"$ne": "tax"}}, "old bare"),
        ({"author.name": "Ada"}, "old"),
        ({"author": {"$exists": True}, "year": {"$lt": 2000}}, "old"),
        ({"$or": [{"year": 2024}, {"author.name": {"$gte": "A"}}]}, "new old"),
        ({"$and": [{"tags": "tax"}, {"tags": "law"}]}, "new"),
        ({"$not": {"lang": "en"}}, "old odd bare"),
        ({"year": {"$not": {"$gt": 2000}}}, "old odd bare"),
    ],
)
def test_each_operator_by_hand(index: ColBERTIndex, where: dict[str, Any], ids: str) -> None:
    assert found(index, where) == set(ids.split())


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"year": {"$regex": "2"}}, r"\$regex"),
        ({"year": {"gte": 2}}, "'gte'"),
        ({"$nor": [{"year": 1}]}, r"\$nor"),
        ({"$gt": 3}, r"\$gt"),
        ({"year": {"$gt": 1, "$foo": 2}}, r"\$foo"),
        ({"$and": [{"year": 1}, {"b": {"$bar": 1}}]}, r"\$bar"),
        ({"year": {"$not": {"$baz": 1}}}, r"\$baz"),
        ({"year": {1: 2}}, "1"),
        ({"$and": []}, r"\$and"),
        ({"$and": {"year": 1}}, r"\$and"),
        ({"$or": "year"}, r"\$or"),
        ({"$or": [7]}, "7"),
        ({"$not": 7}, "7"),
        ({"$not": [{"year": 1}]}, "year"),
        ({"year": {"$not": 7}}, r"\$not"),
        ({"year": {}}, "'year' is empty"),
        ({"year": {"$in": 7}}, r"\$in"),
        ({"year": {"$in": "2024"}}, r"\$in"),
        ({"year": {"$nin": {"a": 1}}}, r"\$nin"),
        ({"year": {"$in": [[1]]}}, "year"),
        ({"year": {"$in": [math.nan]}}, "year"),
        ({"year": {"$contains": None}}, r"\$contains"),
        ({"year": {"$contains": ["a"]}}, r"\$contains"),
        ({"year": {"$contains": {"a": 1}}}, "year"),
        ({"year": {"$contains": "x\0"}}, "NUL"),
        ({"year": {"$exists": 1}}, r"\$exists"),
        ({"year": {"$gt": None}}, r"\$gt"),
        ({"year": {"$gt": True}}, r"\$gt"),
        ({"year": {"$lte": [1]}}, "year"),
        ({"year": [2024]}, "year"),
        ({"year": math.nan}, "nan"),
        ({"year": math.inf}, "inf"),
        ({"year": 2**63}, "9223372036854775808"),
        ({"year": np.int64(3)}, "year"),
        ({"year": b"x"}, "year"),
        ({"year": object()}, "year"),
        ({"year": "x\0"}, "NUL"),
        ({"year": {"$in": ["\ud800"]}}, "surrogate"),
        ({"year\0": 1}, "NUL"),
        ({"\udfff": 1}, "surrogate"),
        ({'a"b': 1}, "quote"),
        ({7: 1}, "7"),
        ({"": 1}, "''"),
        ([("year", 1)], "year"),
        ("year", "year"),
        (7, "7"),
    ],
)
def test_a_malformed_filter_is_named(index: ColBERTIndex, where: Any, named: str) -> None:
    for call in (
        lambda: index.search("text", where=where),
        lambda: index.search("", where=where),
        lambda: index.search("text", 0, where=where),
        lambda: index.search("text", ids=[], where=where),
        lambda: index.search_many(["text"], where=where),
    ):
        with pytest.raises(InvalidInputError, match=named):
            call()
    assert len(index.search("text")) == 4


def test_a_field_name_is_never_sql(index: ColBERTIndex) -> None:
    for field in ("year') OR 1=1 --", "year'", "a[0]", "*", "$.year", "metadata", "'; DROP TABLE passages; --"):
        assert found(index, {"x" + field: {"$exists": True}}) == set()
        assert found(index, {"year": field}) == set()
    assert len(index) == 4


def test_a_dot_is_part_of_a_name_or_stands_between_two() -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(
            [
                Passage("flat", "text", {"dc.title": "Report", "dc.tags": ["x", "y"], "dc.none": None, "dc.list": []}),
                Passage("nested", "text", {"dc": {"title": "Report", "tags": "x", "none": None, "list": []}}),
                Passage("mixed", "text", {"a.b": {"c.d": {"e": 1}}}),
                Passage("both", "text", {"n.m": 1, "n": {"m": 5}}),
                Passage("long", "text", {"a.b.c.d.e.f.g.h": 1}),
                Passage("deep", "text", {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}),
            ]
        )
        either = {"flat", "nested"}
        everything = {"flat", "nested", "mixed", "both", "long", "deep"}
        for where, ids in [
            ({"dc.title": "Report"}, either),
            ({"dc.title": {"$gte": "R"}}, either),
            ({"dc.title": {"$in": ["Report", "Letter"]}}, either),
            ({"dc.title": {"$exists": True}}, either),
            ({"dc.title": {"$exists": False}}, everything - either),
            ({"dc.title": {"$ne": "Report"}}, everything - either),
            ({"dc.tags": "x"}, either),
            ({"dc.tags": "y"}, {"flat"}),
            ({"dc.none": None, "dc.title": "Report"}, either),
            ({"dc.list": {"$eq": []}}, either),
            ({"dc": {"$exists": True}}, {"nested"}),
            ({"a.b.c.d.e": 1}, {"mixed"}),
            ({"n.m": 1}, {"both"}),
            ({"n.m": 5}, {"both"}),
            ({"n.m": {"$nin": [1]}}, everything - {"both"}),
            ({"a.b.c.d.e.f.g.h": 1}, {"long", "deep"}),
        ]:
            assert found(index, where) == ids, where


def test_values_of_derived_classes_compare_as_in_metadata() -> None:
    class Language(str, enum.Enum):
        ENGLISH = "en"

    class Level(enum.IntEnum):
        HIGH = 3

    class Named(str):
        def __str__(self) -> str:
            return "something else"

    given = {"lang": Language.ENGLISH, "level": Level.HIGH, "score": np.float64(0.5), "who": Named("Ada")}
    plain = {"lang": "en", "level": 3, "score": 0.5, "who": "Ada"}
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert([Passage("a", "text", given), Passage("b", "text", plain)])
        for passage in index.get(["a", "b"]):
            assert passage.metadata == plain
            assert [type(value) for value in passage.metadata.values()] == [str, int, float, str]
        for metadata in (given, plain):
            for key, value in metadata.items():
                for condition in (value, {"$eq": value}, {"$in": [value]}, {"$gte": value}):
                    assert found(index, {key: condition}) == {"a", "b"}


@pytest.mark.slow
def test_long_filters(index: ColBERTIndex) -> None:
    assert found(index, {"year": {"$in": [*range(100_000), "2024"]}}) == {"new", "odd"}
    assert found(index, {"$or": [{"year": number} for number in range(1000, 3000)]}) == {"new"}
    assert found(index, {"$and": [{"year": {"$ne": number}} for number in range(1500)]}) == {
        "new",
        "old",
        "odd",
        "bare",
    }
    with pytest.raises(InvalidInputError, match="too large"):
        index.search("text", where={"$or": [{"year": number} for number in range(90_000)]})


def test_deep_filters(index: ColBERTIndex) -> None:
    """Some depth works, and any depth gives an answer or a clear error."""
    where: dict[str, Any] = {"year": 2024}
    for _ in range(20):
        where = {"$not": where}
    assert found(index, where) == {"new"}
    for levels in (100, 1000, 100_000):
        deep: dict[str, Any] = {"year": 2024}
        for _ in range(levels):
            deep = {"$and": [deep]}
        try:
            assert found(index, deep) == {"new"}
        except InvalidInputError as error:
            assert "filter" in str(error)
    for _ in range(2000):
        where = {"$not": where}
    with pytest.raises(InvalidInputError, match="filter"):
        index.search("text", where=where)
    assert len(index.search("text")) == 4
