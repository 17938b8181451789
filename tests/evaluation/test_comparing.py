"""Comparison of two results query by query, against values computed by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from small_collection import QUERIES, TEXTS, write_collection

from rerank_integrations import ColBERTModel, InvalidInputError
from rerank_integrations.evaluation import (
    Dataset,
    Measured,
    RankedPassage,
    compare,
    load_dataset,
    measure_retriever,
)

# q1 stays, q2 is a little worse, q3 lost, q4 a little better.
A = {"q1": ["zip", "json"], "q2": ["os", "copy", "zip"], "q3": ["csv", "json"], "q4": ["os", "zip", "copy"]}
B = {"q1": ["zip", "csv"], "q2": ["copy", "os"], "q3": ["json", "zip", "os", "copy"], "q4": ["os", "copy"]}
# Of graded gains: os 2, copy 1.
SWAPPED = (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))
VALUES_A = [1, 1, 1, 0.5]
VALUES_B = [1, SWAPPED, 0, 1 / math.log2(3)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_collection(tmp_path_factory.mktemp("data") / "modules"))


def measured(name: str, run: dict[str, list[str]], data: Dataset) -> Measured:
    by_text = {text: run[query] for query, text in QUERIES.items()}
    return measure_retriever(name, by_text.__getitem__, data, callers=(1,))


@pytest.fixture(scope="module")
def a(data: Dataset) -> Measured:
    return measured("before", A, data)


@pytest.fixture(scope="module")
def b(data: Dataset) -> Measured:
    return measured("after", B, data)


def test_means_counts_and_chance(a: Measured, b: Measured, data: Dataset) -> None:
    found = compare(a, b, data)
    assert (found.name_a, found.name_b, found.metric) == ("before", "after", "nDCG@10")
    assert found.mean_a == pytest.approx(np.mean(VALUES_A), abs=1e-6)
    assert found.mean_b == pytest.approx(np.mean(VALUES_B), abs=1e-6)
    assert (found.better, found.worse, found.same) == (1, 2, 1)
    differences = np.array(VALUES_B) - VALUES_A
    t = differences.mean() / (differences.std(ddof=1) / 2)
    assert found.p_value == pytest.approx(2 * special.stdtr(3, -abs(t)), abs=1e-5)


def test_the_queries_that_changed_most_come_first(a: Measured, b: Measured, data: Dataset) -> None:
    found = compare(a, b, data)
    assert [change.id for change in found.changes] == ["q3", "q2", "q4"]
    assert [change.value_b for change in found.changes] == pytest.approx([0, SWAPPED, 1 / math.log2(3)], abs=1e-6)
    assert compare(a, b, data, top=2).changes == found.changes[:2]
    assert compare(a, b, data, top=0) == dataclasses.replace(found, changes=())


def test_where_the_passages_stand(a: Measured, b: Measured, data: Dataset) -> None:
    lost, swapped, _ = compare(a, b, data).changes
    assert lost.text == "tables with commas"
    assert lost.relevant == (RankedPassage("csv", 1, 1, None),)
    # The best three of each, not copy, which stands fourth; those of the first rank in B before those of A alone.
    assert [(one.id, one.grade, one.rank_a, one.rank_b) for one in lost.passages] == [
        ("json", None, 2, 1),
        ("csv", 1, 1, None),
        ("zip", None, None, 2),
        ("os", None, None, 3),
    ]
    assert [one.text for one in lost.passages] == [TEXTS[one.id] for one in lost.passages]
    assert swapped.relevant == (RankedPassage("copy", 1, 2, 1), RankedPassage("os", 2, 1, 2))


def test_a_relevant_passage_that_neither_found_is_shown(data: Dataset) -> None:
    nothing = {key: list[str]() for key in QUERIES}
    found = compare(measured("none", nothing, data), measured("one", {**nothing, "q2": ["os"]}, data), data)
    (change,) = found.changes
    assert [(one.id, one.rank_a, one.rank_b) for one in change.passages] == [("os", None, 1), ("copy", None, None)]


def test_another_metric(a: Measured, b: Measured, data: Dataset) -> None:
    found = compare(a, b, data, metric="MRR@10")
    assert found.mean_a == pytest.approx((1 + 1 + 1 + 1 / 3) / 4)
    # q2's best passage is relevant in both.
    assert [change.id for change in found.changes] == ["q3", "q4"]


def test_a_result_and_itself(a: Measured, data: Dataset) -> None:
    found = compare(a, a, data)
    assert (found.better, found.worse, found.same, found.p_value, found.changes) == (0, 0, 4, None, ())


def test_matches_are_the_models(a: Measured, b: Measured, data: Dataset, colbert: ColBERTModel) -> None:
    assert compare(a, b, data).colbert is None
    assert not any(one.matches for change in compare(a, b, data).changes for one in change.passages)
    found = compare(a, b, data, colbert=colbert, top=1)
    assert found.colbert == colbert.name
    for one in found.changes[0].passages:
        assert list(one.matches) == colbert.explain("tables with commas", TEXTS[one.id])
        assert one.matches


@pytest.mark.parametrize(
    "stages",
    [
        {"retrieve": {"kind": "colbert", "model": "MODEL", "nbits": 2}, "rerank": []},
        {"retrieve": {"kind": "bm25", "model": None}, "rerank": [{"kind": "colbert", "model": "MODEL"}]},
    ],
)
def test_the_model_is_that_of_a_stage(
    a: Measured, b: Measured, data: Dataset, colbert_dir: Path, stages: dict[str, object]
) -> None:
    named = json.loads(json.dumps({"name": "late", **stages}).replace("MODEL", str(colbert_dir)))
    late = dataclasses.replace(a, pipeline=named)
    for found in (compare(late, b, data), compare(b, late, data)):
        assert found.colbert == str(colbert_dir)
        assert found.changes[0].passages[0].matches
    assert compare(late, b, data, colbert=None).colbert is None


def test_it_is_json(a: Measured, b: Measured, data: Dataset, colbert: ColBERTModel) -> None:
    found = compare(a, b, data, colbert=colbert)
    record = json.loads(json.dumps(found.to_json()), parse_constant=pytest.fail)
    match = found.changes[0].passages[0].matches[0]
    assert record["changes"][0]["passages"][0]["matches"][0] == match.to_dict()


def test_the_collection_is_found_again(a: Measured, b: Measured, data: Dataset, tmp_path: Path) -> None:
    assert data.source is not None
    assert compare(a, b) == compare(a, b, data) == compare(a, b, data.source["folder"])
    # Under another name it is the same collection.
    assert compare(a, b, write_collection(tmp_path / "renamed")).mean_a == compare(a, b).mean_a


def test_its_split_is_remembered(tmp_path: Path) -> None:
    dev = load_dataset(write_collection(tmp_path / "modules", split="dev"), split="dev")
    a, b = measured("before", A, dev), measured("after", B, dev)
    assert compare(a, b).changes == compare(a, b, tmp_path / "modules").changes == compare(a, b, dev).changes


def test_a_collection_that_moved(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "modules")
    data = load_dataset(folder)
    a, b = measured("before", A, data), measured("after", B, data)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="no folder now") as caught:
        compare(a, b)
    assert str(folder) in str(caught.value)
    assert len(compare(a, b, tmp_path / "elsewhere").changes) == 3


def test_a_collection_that_changed(a: Measured, b: Measured, tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "modules")
    with (folder / "corpus.jsonl").open("a") as stream:
        stream.write('\n{"_id": "new", "text": "more"}')
    with pytest.raises(InvalidInputError, match=r"passages 6.*passages 5"):
        compare(a, b, folder)


def test_a_collection_that_was_made_in_python(a: Measured, data: Dataset) -> None:
    nowhere = dataclasses.replace(data, source=None)
    alone = measured("alone", B, nowhere)
    assert compare(a, alone).same == 1
    with pytest.raises(InvalidInputError, match="do not tell where"):
        compare(alone, alone)


def test_results_of_different_collections(a: Measured, data: Dataset) -> None:
    fewer = dataclasses.replace(data, name="fewer", qrels={"q1": {"zip": 1}})
    other = measured("other", B, dataclasses.replace(fewer, queries={"q1": QUERIES["q1"]}))
    with pytest.raises(InvalidInputError, match="one collection") as caught:
        compare(a, other, "no/such/folder")
    for part in ("'modules'", "'fewer'", "queries 4", "queries 1"):
        assert part in str(caught.value)


def test_options_that_are_none(a: Measured, b: Measured) -> None:
    with pytest.raises(InvalidInputError, match=r"'nDCG'; expected one of recall@10, recall@100, nDCG@10, MRR@10"):
        compare(a, b, "no/such/folder", metric="nDCG")
    with pytest.raises(InvalidInputError, match="top is -1"):
        compare(a, b, "no/such/folder", top=-1)
