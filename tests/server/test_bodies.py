"""Bodies: large ones are read as small ones are, unless they have millions of values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service import PASSAGES

from rerank_integrations import ColBERTIndex
from rerank_integrations.server.bodies import MAX_VALUES, count_values

JSON = {"content-type": "application/json"}
MEBIBYTES_10 = 10 * 2**20


def values_within(value: Any) -> int:
    """Return how many commas and opening brackets `value` has outside of its strings when it is written as JSON."""
    if not isinstance(value, list | dict):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(values_within(item) for item in inner)


TEXTS = st.text(st.sampled_from('a,[{"\\}é\n'), max_size=12)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES, st.booleans())
def test_values_are_counted_outside_of_strings(value: Any, ascii_only: bool) -> None:
    assert count_values(json.dumps(value, ensure_ascii=ascii_only).encode()) == values_within(value)


@pytest.mark.parametrize("length", range(2**20 - 4, 2**20 + 2))
def test_a_string_may_end_anywhere_in_a_large_body(length: int) -> None:
    # The parts that are counted one after another are a mebibyte each; an escape may stand at their border.
    for ending in ('\\"', "\\\\", ",", "\\\\\\"):
        value = ["x" * length + ending, ["a,b", {"k": 1}]]
        assert count_values(json.dumps(value).encode()) == values_within(value)


def test_a_large_body_is_read_as_a_small_one(client: TestClient, index: ColBERTIndex) -> None:
    text = 'é "quoted", {not} [a] \\ list ' * 200
    documents = [f"light {number} {text}" for number in range(900)]
    body = json.dumps({"query": "light", "documents": documents, "top_n": 1}).encode()
    assert 5 * 2**20 < len(body) < MEBIBYTES_10
    response = client.post("/v2/rerank", content=body, headers=JSON)
    assert response.status_code == 200
    assert response.json()["results"][0]["index"] == 0
    number = {"big": 10**30, "small": -(10**30), "float": 1.5, "text": "é\u2028", "list": [None, True, {"a": []}]}
    passages = [{"id": "p", "text": "a" * 100_000, "metadata": number}]
    for _ in range(2):
        refused = client.put("/v1/passages", json={"passages": passages})
        if refused.status_code == 200:
            assert index.get(["p"])[0].metadata == number
            break
        # An index that does not store such whole numbers says so, and does not round them.
        assert "10000000000000" in refused.json()["message"]
        del number["big"], number["small"]
    assert index.get(["p"])[0].metadata == number


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["[]", "{}", "1", '"a"', "[[[]]]"])
def test_a_body_of_millions_of_values_is_refused(client: TestClient, unit: str) -> None:
    count = (MEBIBYTES_10 - 100) // (len(unit) + 1)
    body = b'{"query": "q", "documents": [' + b",".join([unit.encode()] * count) + b"]}"
    response = client.post("/v1/rerank", content=body, headers=JSON)
    assert response.status_code == 422
    assert f"more than {MAX_VALUES} values" in response.json()["message"]


def test_a_body_of_many_wrong_values_is_refused_in_short(client: TestClient) -> None:
    unknown = ",".join(f'"{number}": 1' for number in range(50_000))
    for body in (
        f'{{"query": "q", "documents": ["a"], {unknown}}}',
        f'{{"query": "q", "documents": [{",".join(["1"] * 90_000)}]}}',
        f'{{"query": "q", "ids": [{",".join(["1"] * 90_000)}]}}',
    ):
        for path in ("/v1/rerank", "/v1/search"):
            response = client.post(path, content=body.encode(), headers=JSON)
            assert response.status_code == 422
            assert len(response.content) < 3000


def test_duplicate_fields_are_read_as_everybody_reads_them(client: TestClient) -> None:
    body = b'{"query": "nothing", "documents": ["a"], "query": "solar panels", "documents": ["b", "solar"]}'
    response = client.post("/v1/rerank", content=body, headers=JSON)
    assert [item["index"] for item in response.json()["results"]] == [1, 0]


def test_other_media_types_are_refused(client: TestClient) -> None:
    body = json.dumps({"query": "q", "documents": [PASSAGES[0].text]}).encode()
    for kind, status in (
        ("application/json; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("text/plain", 422),
    ):
        assert client.post("/v1/rerank", content=body, headers={"content-type": kind}).status_code == status
