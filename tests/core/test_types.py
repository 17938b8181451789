"""Passages and hits, and the values that are accepted as one."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from rerank_integrations import Hit, InvalidInputError, Passage
from rerank_integrations.core.types import iter_passages, to_passage


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("", "text"), "id is ''"),
        ((7, "text"), "id is 7"),
        (("a", None), "'a'.*NoneType"),
        (("a", b"raw"), "'a'.*bytes"),
        (("a", "text", [1]), "'a'.*list"),
        (("a", "text", None), "'a'.*NoneType"),
    ],
)
def test_a_passage_checks_its_fields(arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        Passage(*arguments)


def test_values_are_frozen() -> None:
    passage, hit = Passage("a", ""), Hit("a", 1.0, 1, "text")
    for value in (passage, hit):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.id = "b"  # type: ignore[misc]
        assert value.metadata == {}
    assert Passage("a", "").metadata is not passage.metadata


def test_a_passage_does_not_follow_the_callers_mapping() -> None:
    given = {"n": 1}
    passage = Passage("a", "text", given)
    given["n"] = 2
    assert passage.metadata == {"n": 1}


def test_a_hit_is_json() -> None:
    hit = Hit("a", 0.5, 1, "text", {"n": [1]})
    assert json.loads(json.dumps(hit.to_dict())) == {
        "id": "a", "score": 0.5, "rank": 1, "text": "text", "metadata": {"n": [1]}
    }  # fmt: skip
    assert replace(hit, note={"truncated": True}).to_dict()["note"] == {"truncated": True}


def test_what_is_taken_for_a_passage() -> None:
    passage = Passage("a", "text", {"n": 1})
    assert to_passage(passage) is passage
    assert to_passage(Hit("a", 3.0, 7, "text", {"n": 1})) == passage
    assert to_passage({"id": "a", "text": "text", "metadata": {"n": 1}}) == passage
    assert to_passage(MappingProxyType({"id": "a", "text": "text", "metadata": MappingProxyType({"n": 1})})) == passage
    expected = Passage(hashlib.sha256("grün".encode()).hexdigest()[:32], "grün")
    for given in ("grün", {"text": "grün"}, {"text": "grün", "id": None, "metadata": None}):
        assert to_passage(given) == expected


def test_an_id_that_is_made() -> None:
    first, second, bare = (
        Passage(None, "same", metadata) for metadata in ({"source": "a", "n": 1}, {"source": "b"}, {})
    )
    assert len({first.id, second.id, bare.id, Passage(None, 'same{"source": "b"}').id}) == 4
    assert Passage(None, "same", {"n": 1, "source": "a"}) == first == to_passage(
        {"text": "same", "metadata": {"source": "a", "n": 1}}
    )  # fmt: skip
    assert bare == to_passage("same")
    assert Passage(None, "same", {"not": {"JSON"}}).id == bare.id
    for copied in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first), replace(first)):
        assert copied == first


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (7, "int"),
        (None, "NoneType"),
        (b"raw", "bytes"),
        (["text"], "list"),
        ({}, "'text'"),
        ({"id": "a"}, "'id'"),
        ({"text": "x", "page": 3}, "'page'"),
        ({"text": "x", 3: 3}, "'3'"),
        ({"text": 7}, "int"),
        ({"text": "x", "id": 7}, "7"),
    ],
)
def test_what_is_not(given: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        to_passage(given)


@pytest.mark.parametrize("given", ["text", b"raw", {"text": "x"}, Passage("a", "x"), Hit("a", 1.0, 1, "x"), 7, None])
def test_one_passage_is_no_list_of_them(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(given).__name__):
        iter_passages(given)
