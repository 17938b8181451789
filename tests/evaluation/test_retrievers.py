"""Retrievers of any kind on a collection: the frameworks', through this package's adapters, and plain functions."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_collection import QUERIES, TEXTS, write_collection

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError
from rerank_integrations.evaluation import (
    Dataset,
    Measured,
    keep_result,
    load_dataset,
    measure_retriever,
    read_result,
    read_results,
    summarize,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_collection(tmp_path_factory.mktemp("data") / "modules"))


@pytest.fixture(scope="module")
def index(colbert: ColBERTModel, data: Dataset) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, colbert) as created:
        created.upsert(data.passages)
        yield created


@pytest.fixture(scope="module")
def expected(index: ColBERTIndex) -> dict[str, list[str]]:
    return {query: [hit.id for hit in index.search(text, 4)] for query, text in QUERIES.items()}


def test_a_langchain_retriever(index: ColBERTIndex, data: Dataset, expected: dict[str, list[str]]) -> None:
    pytest.importorskip("langchain_core", reason="measures its retriever")
    from rerank_integrations.langchain import ColBERTRetriever

    measured = measure_retriever("mine", ColBERTRetriever(index=index, k=4), data)
    assert measured.run == expected
    assert measured.pipeline["retrieve"]["kind"] == "langchain"
    assert measured.pipeline["retrieve"]["model"] == "rerank_integrations.langchain.retriever.ColBERTRetriever"


def test_langchain_chunks_count_as_their_passage(data: Dataset) -> None:
    pytest.importorskip("langchain_core", reason="measures its retriever")
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    chunks = [
        Document(id="7f3", page_content="", metadata={"_id": "os"}),
        Document(id="zip", page_content=""),
        Document(id="7f4", page_content="", metadata={"_id": "os", "id": "csv"}),
        Document(page_content="", metadata={"id": "json"}),
    ]
    measured = measure_retriever("chunks", RunnableLambda(lambda query: chunks), data, callers=(1,))
    assert measured.run["q1"] == ["os", "zip", "json"]
    assert set(measured.per_s) == {1}


def test_a_llama_index_retriever(index: ColBERTIndex, data: Dataset, expected: dict[str, list[str]]) -> None:
    pytest.importorskip("llama_index.core", reason="measures its retriever")
    from rerank_integrations.llama_index import ColBERTRetriever

    measured = measure_retriever("mine", ColBERTRetriever(index, similarity_top_k=4), data)
    assert measured.run == expected
    assert measured.pipeline["retrieve"]["kind"] == "llama-index"


def test_llama_index_chunks_count_as_their_source(data: Dataset) -> None:
    pytest.importorskip("llama_index.core", reason="measures its retriever")
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

    class Chunks(BaseRetriever):
        def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
            sources = ["os", "zip", "os"]
            made = [{NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)} for source in sources]
            return [NodeWithScore(node=TextNode(text="some words", relationships=one), score=1.0) for one in made]

    assert measure_retriever("chunks", Chunks(), data).run["q2"] == ["os", "zip"]


def test_functions(index: ColBERTIndex, data: Dataset, expected: dict[str, list[str]]) -> None:
    hits = measure_retriever("hits", lambda text: index.search(text, 4), data)
    ids = measure_retriever("ids", lambda text: (hit.id for hit in index.search(text, 4)), data)
    assert hits.run == ids.run == expected
    assert hits.pipeline["retrieve"]["kind"] == "function"


def test_numbers_are_ids_as_the_collection_has_them(data: Dataset) -> None:
    numbered = {key: str(number) for number, key in enumerate(TEXTS)}
    renamed = dataclasses.replace(
        data,
        passages=tuple(dataclasses.replace(passage, id=numbered[passage.id]) for passage in data.passages),
        qrels={query: {numbered[key]: grade for key, grade in grades.items()} for query, grades in data.qrels.items()},
    )
    assert measure_retriever("numbers", lambda text: np.array([2, 0, 2]), renamed).run["q1"] == ["2", "0"]


def test_it_is_reported_and_kept_like_a_pipeline(data: Dataset, tmp_path: Path) -> None:
    answers = {"open an archive": ["zip"], "walk through folders": ["copy", "os"], "tables with commas": []}
    some = measure_retriever("some", lambda text: answers.get(text, ["zip", "copy"]), data)
    none = measure_retriever("none", lambda text: [], data, build_s=1.5, index_bytes=3_000_000)
    first, second = summarize([some, none], data.qrels)
    assert first.quality["MRR@10"] == pytest.approx((1 + 1 + 0 + 1 / 2) / 4)
    assert first.quality["recall@10"] == pytest.approx(3 / 4)
    assert second.quality["MRR@10"] == 0
    assert first.ms["total"] == first.ms["retrieve"]
    assert set(first.per_s) == {1, 8}
    assert (first.build_s, first.index_mb) == (None, None)
    assert (second.build_s, second.index_mb) == (1.5, 3.0)
    for measured in (some, none):
        keep_result(tmp_path / "kept" / f"{measured.pipeline['name']}.json", measured)
    # JSON knows no tuples and no NaN.
    json.loads((tmp_path / "kept" / "some.json").read_text(), parse_constant=pytest.fail)
    assert read_result(tmp_path / "kept" / "some.json") == some
    assert read_results(tmp_path / "kept") == [none, some]


def test_a_result_without_its_ending(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"expected \.json"):
        keep_result(tmp_path / "some.txt", measure_retriever("some", lambda text: [], data))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["zip", "tar"], "'tar'"),
        ([{"_id": "zip"}], "a dict without an id"),
        ([True], "a bool without an id"),
        ("zip", "one str"),
        ({"zip": 1.0}, "one dict"),
        (None, "one NoneType"),
    ],
)
def test_what_are_no_ids_of_the_collection(data: Dataset, given: object, told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        measure_retriever("mine", lambda text: given, data)
    assert told in str(caught.value)
    assert "mine, asked 'open an archive', gave" in str(caught.value)


def test_what_is_no_retriever(data: Dataset) -> None:
    with pytest.raises(InvalidInputError, match="type list"):
        measure_retriever("mine", ["zip"], data)
    with pytest.raises(InvalidInputError, match="name is ''"):
        measure_retriever("", lambda text: [], data)
    with pytest.raises(InvalidInputError, match=r"callers is \(1, 0\)"):
        measure_retriever("mine", lambda text: [], data, callers=(1, 0))


def test_the_time_of_a_generator_is_its_own(data: Dataset) -> None:
    def slowly(text: str) -> Iterator[str]:
        time.sleep(0.02)
        yield "zip"

    assert min(measure_retriever("slow", slowly, data, callers=()).ms["retrieve"]) >= 20


def test_records_that_are_no_measurements(data: Dataset) -> None:
    record = measure_retriever("mine", lambda text: [], data).to_json()
    assert Measured.from_json(record).run == {key: [] for key in QUERIES}
    for changed in ({"pipeline": {}}, {"data": None}, {"run": {"q1": "zip"}}, {"run": []}, {"more": 1}):
        with pytest.raises(InvalidInputError, match="not the record"):
            Measured.from_json({**record, **changed})
