"""Both frameworks give what the core gives: the same ids, order, scores and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints.cross_encoder import write_far_logits
from corpus import QUERIES
from ranked_rows import candidates_of, ids, rows_of_hits

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Hit, Passage, rerank


@pytest.mark.parametrize("query", QUERIES)
def test_retrieval(harness: Any, index: ColBERTIndex, query: str) -> None:
    assert harness.retrieve(harness.retriever(index, k=7), query) == rows_of_hits(index.search(query, 7))


@pytest.mark.parametrize("query", QUERIES[:4])
def test_retrieval_from_a_path(harness: Any, index: ColBERTIndex, query: str) -> None:
    for path in (index.path, str(index.path)):
        # Its model lies in a folder, which the index alone does not make anyone read.
        spec = {"path": path, "model": index.model.options()}
        assert harness.retrieve(harness.retriever(spec), query) == rows_of_hits(index.search(query))


@pytest.mark.parametrize("query", QUERIES[:4])
def test_filtered_retrieval(harness: Any, index: ColBERTIndex, query: str) -> None:
    expected = index.search(query, 10, where={"year": {"$gte": 2015}})
    assert harness.retrieve(harness.retriever(index, since=2015), query) == rows_of_hits(expected)
    assert {hit.metadata["year"] for hit in expected} <= set(range(2015, 2020))


@pytest.mark.parametrize("query", QUERIES[:3])
@pytest.mark.parametrize("top_n", [None, 5, 50])
def test_colbert_rerank(
    harness: Any, colbert: ColBERTModel, passages: list[Passage], query: str, top_n: int | None
) -> None:
    chosen = candidates_of(passages)
    reranker = harness.colbert_rerank(model=colbert, top_n=top_n)
    got = harness.rerank(reranker, harness.candidates(chosen), query)
    assert got == rows_of_hits(rerank(query, chosen, colbert, top_n=top_n))


@pytest.mark.parametrize("query", QUERIES[:3])
@pytest.mark.parametrize("top_n", [None, 5, 50])
def test_cross_encoder_rerank(
    harness: Any, cross_encoder: CrossEncoderModel, passages: list[Passage], query: str, top_n: int | None
) -> None:
    chosen = candidates_of(passages)
    reranker = harness.cross_encoder_rerank(model=cross_encoder, top_n=top_n)
    got = harness.rerank(reranker, harness.candidates(chosen), query)
    assert got == rows_of_hits(rerank(query, chosen, cross_encoder, top_n=top_n))


@pytest.mark.parametrize("query", QUERIES[:4])
def test_rerank_from_stored_vectors(
    harness: Any, index: ColBERTIndex, colbert: ColBERTModel, passages: list[Passage], query: str
) -> None:
    chosen = candidates_of(passages)
    expected = rows_of_hits(index.rerank(query, [passage.id for passage in chosen]))
    for reranker in (
        harness.colbert_rerank(index=index, top_n=None),
        harness.colbert_rerank(model=colbert, index=index, top_n=None),
        harness.colbert_rerank(model=colbert, index=index.path, top_n=None),
    ):
        assert harness.rerank(reranker, harness.candidates(chosen), query) == expected


def test_only_what_the_index_does_not_hold_is_encoded(
    harness: Any, colbert: ColBERTModel, passages: list[Passage]
) -> None:
    encoder = _Counting(colbert)
    query = QUERIES[0]
    stored_passage, changed, unknown = (
        passages[0],
        Passage(passages[1].id, "A text of its own."),
        Passage("new", "Not there."),
    )
    with ColBERTIndex.create(None, encoder) as index:
        index.upsert(passages[:3])
        encoder.documents.clear()
        reranker = harness.colbert_rerank(index=index, top_n=None)
        got = harness.rerank(reranker, harness.candidates([unknown, stored_passage, changed]), query)
        assert encoder.documents == [unknown.text, changed.text]
        stored = index.rerank(query, [stored_passage.id])[0].score
    fresh = rerank(query, [unknown, changed], colbert)
    best_first = sorted([*fresh, Hit(stored_passage.id, stored, 1, stored_passage.text)], key=lambda hit: -hit.score)
    assert got == rows_of_hits(best_first)


def test_ties_keep_the_order_of_the_candidates(harness: Any, cross_encoder: CrossEncoderModel) -> None:
    chosen = [Passage(name, "The same words in each.") for name in ("c", "a", "b")]
    reranker = harness.cross_encoder_rerank(model=cross_encoder, top_n=None)
    assert ids(harness.rerank(reranker, harness.candidates(chosen), "same words")) == ["c", "a", "b"]


class _Counting:
    """A ColBERT model that notes which documents it encodes."""

    def __init__(self, model: ColBERTModel) -> None:
        self._model = model
        self.documents: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_documents(self, texts: Any, show_progress: bool = False) -> Any:
        self.documents += texts
        return self._model.encode_documents(texts, show_progress)


def test_scores_that_are_rounded_to_one_keep_the_order_of_their_logits(
    harness: Any, passages: list[Passage], tmp_path: Path
) -> None:
    model = CrossEncoderModel(write_far_logits(tmp_path, 60.0), dtype="float32", device="cpu")
    raw = CrossEncoderModel(model.name, dtype="float32", device="cpu", activation="raw")
    expected = [hit.id for hit in rerank(QUERIES[0], passages[:12], raw)]
    reranker = harness.cross_encoder_rerank(model=model, top_n=None)
    rows = harness.rerank(reranker, harness.candidates(passages[:12]), QUERIES[0])
    assert [row.id for row in rows] == expected != [passage.id for passage in passages[:12]]
    assert {row.score for row in rows} == {1.0}
