"""Bad input is a clear error or the natural empty answer, and the same in both frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_multi_vector
from ranked_rows import ids

from rerank_integrations import (
    ColBERTIndex,
    ColBERTModel,
    CrossEncoderModel,
    IndexClosedError,
    IndexFormatError,
    InvalidInputError,
    ModelMismatchError,
    Passage,
    rerank,
)

BLANK = ("", " ", "\n\t")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> ColBERTModel:
    return ColBERTModel(write_multi_vector(tmp_path_factory.mktemp("other") / "model", seed=7), dtype="float32")


@pytest.fixture
def small(tmp_path: Path, colbert: ColBERTModel, passages: list[Passage]) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(tmp_path / "small", colbert) as created:
        created.upsert(passages[:5])
        yield created


@pytest.mark.parametrize("query", BLANK)
async def test_blank_query_finds_nothing(harness: Any, index: ColBERTIndex, query: str) -> None:
    retriever = harness.retriever(index)
    assert harness.retrieve(retriever, query) == []
    assert await harness.aretrieve(retriever, query) == []


@pytest.mark.parametrize("query", BLANK)
async def test_blank_query_cannot_rank(
    harness: Any, cross_encoder: CrossEncoderModel, colbert: ColBERTModel, passages: list[Passage], query: str
) -> None:
    candidates = harness.candidates(passages[:3])
    for reranker in (
        harness.cross_encoder_rerank(model=cross_encoder),
        harness.colbert_rerank(model=colbert),
    ):
        with pytest.raises(InvalidInputError, match="query is"):
            harness.rerank(reranker, candidates, query)
        with pytest.raises(InvalidInputError, match="query is"):
            await harness.arerank(reranker, candidates, query)


async def test_no_candidates(harness: Any, cross_encoder: CrossEncoderModel) -> None:
    reranker = harness.cross_encoder_rerank(model=cross_encoder)
    assert harness.rerank(reranker, [], "a query") == []
    assert await harness.arerank(reranker, [], "a query") == []


def test_whitespace_passages_are_ranked_as_the_core_ranks_them(
    harness: Any, colbert: ColBERTModel, cross_encoder: CrossEncoderModel
) -> None:
    chosen = [Passage("blank", "  \n"), Passage("empty", ""), Passage("full", "Mars is red.")]
    for component, model in (
        (harness.colbert_rerank, colbert),
        (harness.cross_encoder_rerank, cross_encoder),
    ):
        rows = harness.rerank(component(model=model, top_n=None), harness.candidates(chosen), "why is Mars red")
        assert [(row.id, row.score) for row in rows] == [
            (hit.id, hit.score) for hit in rerank("why is Mars red", chosen, model)
        ]


def test_whitespace_passages_are_found_like_any(harness: Any, small: ColBERTIndex) -> None:
    small.upsert([Passage("blank", " \n")])
    assert "blank" in ids(harness.retrieve(harness.retriever(small), "why is Mars red"))


def test_k_of_zero(harness: Any, index: ColBERTIndex, cross_encoder: CrossEncoderModel) -> None:
    assert harness.retrieve(harness.retriever(index, k=0), "why is Mars red") == []
    reranker = harness.cross_encoder_rerank(model=cross_encoder, top_n=0)
    assert harness.rerank(reranker, harness.candidates([Passage("a", "text")]), "why is Mars red") == []


@pytest.mark.parametrize("k", [-1, 2.5, "3", True, None])
def test_k_that_is_no_count(harness: Any, index: ColBERTIndex, k: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a whole number of at least 0"):
        harness.retriever(index, k=k)


def test_negative_top_n(harness: Any, cross_encoder: CrossEncoderModel, colbert: ColBERTModel) -> None:
    for component, model in ((harness.colbert_rerank, colbert), (harness.cross_encoder_rerank, cross_encoder)):
        with pytest.raises(InvalidInputError, match="top_n is -1"):
            component(model=model, top_n=-1)


def test_k_over_the_number_of_passages(harness: Any, small: ColBERTIndex) -> None:
    rows = harness.retrieve(harness.retriever(small, k=1000), "why is Mars red")
    assert sorted(ids(rows)) == [f"p0{number}" for number in range(5)]


def test_candidates_of_one_id_and_other_texts_are_all_kept(
    harness: Any, index: ColBERTIndex, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    twice = [passages[0], Passage(passages[0].id, "Other words."), Passage(passages[0].id, "")]
    for reranker in (
        harness.colbert_rerank(model=colbert, top_n=None),
        harness.colbert_rerank(index=index, top_n=None),
    ):
        rows = harness.rerank(reranker, harness.candidates(twice), "read a zip file")
        assert ids(rows) == [passages[0].id] * 3
        assert sorted(row.text for row in rows) == sorted(passage.text for passage in twice)


def test_unknown_filter_operator(harness: Any, index: ColBERTIndex) -> None:
    with pytest.raises(InvalidInputError, match="operator"):
        harness.retrieve(harness.retriever_with_bad_filter(index), "why is Mars red")


def test_folder_that_is_no_index(harness: Any, tmp_path: Path, colbert: ColBERTModel) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(IndexFormatError, match="not an index"):
            harness.retriever(path)
        with pytest.raises(IndexFormatError, match="not an index"):
            harness.colbert_rerank(model=colbert, index=path)


@pytest.mark.parametrize("wrong", [None, 7, ["index"]])
def test_index_of_a_wrong_kind(harness: Any, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a path, a ColBERTIndex, or a mapping of path and model"):
        harness.retriever(wrong)


@pytest.mark.parametrize("wrong", [7, object()])
def test_model_of_a_wrong_kind(harness: Any, wrong: Any) -> None:
    for component in (harness.colbert_rerank, harness.cross_encoder_rerank):
        with pytest.raises(InvalidInputError, match="expected a name, a path or"):
            component(model=wrong)


def test_colbert_rerank_needs_a_model_or_an_index(harness: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a model, an index, or both"):
        harness.colbert_rerank()


def test_index_of_another_model(
    harness: Any, small: ColBERTIndex, other_model: ColBERTModel, passages: list[Passage]
) -> None:
    with pytest.raises(ModelMismatchError):
        harness.colbert_rerank(model=other_model, index=small.path)
    reranker = harness.colbert_rerank(model=other_model, index=small)
    with pytest.raises(ModelMismatchError):
        harness.rerank(reranker, harness.candidates(passages[:3]), "why is Mars red")


def test_truncated_segment(harness: Any, small: ColBERTIndex) -> None:
    path, model = small.path, small.model
    small.close()
    largest = max((file for file in path.rglob("*.npy")), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-10])
    with pytest.raises(IndexFormatError):
        harness.retrieve(harness.retriever({"path": path, "model": model}), "why is Mars red")


def test_closed_index(harness: Any, small: ColBERTIndex) -> None:
    retriever = harness.retriever(small)
    small.close()
    with pytest.raises(IndexClosedError):
        harness.retrieve(retriever, "why is Mars red")


def test_a_reader_sees_what_a_writer_adds(harness: Any, small: ColBERTIndex) -> None:
    retriever = harness.retriever({"path": small.path, "model": small.model})
    assert len(harness.retrieve(retriever, "why is Mars red")) == 5
    small.upsert([Passage("mars", "Mars looks red because its soil holds iron.")])
    assert "mars" in ids(harness.retrieve(retriever, "why is Mars red"))


def test_nan_scores_are_an_error(harness: Any, passages: list[Passage]) -> None:
    class Broken:
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [float("nan") for _ in texts]

    with pytest.raises(InvalidInputError, match="NaN"):
        harness.rerank(harness.cross_encoder_rerank(model=Broken()), harness.candidates(passages[:2]), "a query")
