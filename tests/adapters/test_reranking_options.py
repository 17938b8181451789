"""The rerankers' options: both frameworks give the ids, scores and notes that the core gives."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of, ids, long_passages, noted_of_hits

from rerank_integrations import (
    ColBERTIndex,
    ColBERTModel,
    ColBERTRerankOptions,
    ColBERTScorer,
    CrossEncoderModel,
    Passage,
    RerankOptions,
    TextTooLongError,
    TruncationWarning,
    fit_threshold,
    rerank,
)

QUERY = QUERIES[0]
SHORT = 40


@pytest.fixture
def short_colbert(colbert_dir: Path) -> ColBERTModel:
    return ColBERTModel(str(colbert_dir), dtype="float32", device="cpu", document_length=SHORT)


@pytest.fixture
def short_reader(cross_encoder_dir: Path) -> CrossEncoderModel:
    return CrossEncoderModel(str(cross_encoder_dir), dtype="float32", device="cpu", max_length=SHORT)


class Counting:
    """Scores a text by its length, and keeps what it was shown."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.texts += texts
        return [float(len(text)) for text in texts]


@pytest.mark.parametrize(("window", "stride"), [(20, None), (24, 8), (1000, None)])
def test_windows_of_colbert(
    harness: Any, short_colbert: ColBERTModel, passages: list[Passage], window: int, stride: int | None
) -> None:
    chosen = long_passages(passages)
    reranker = harness.colbert_rerank(model=short_colbert, top_n=None, window=window, stride=stride)
    got = harness.noted(reranker, harness.candidates(chosen), QUERY)
    assert got == noted_of_hits(rerank(QUERY, chosen, short_colbert, window=window, stride=stride))
    texts = {passage.id: passage.text for passage in chosen}
    for item in got:
        start, end = item.note["window_start"], item.note["window_end"]
        # A window lies in the text; of a short text it is the whole.
        assert 0 <= start < end <= len(texts[item.id])
        assert (item.id == passages[0].id) == ((start, end) == (0, len(texts[item.id])))
        assert "truncated" not in item.note


@pytest.mark.parametrize(("window", "stride"), [(16, None), (24, 8)])
def test_windows_of_a_cross_encoder(
    harness: Any, short_reader: CrossEncoderModel, passages: list[Passage], window: int, stride: int | None
) -> None:
    chosen = long_passages(passages)
    reranker = harness.cross_encoder_rerank(model=short_reader, top_n=3, window=window, stride=stride)
    got = harness.noted(reranker, harness.candidates(chosen), QUERY)
    assert got == noted_of_hits(rerank(QUERY, chosen, short_reader, top_n=3, window=window, stride=stride))
    assert all("window_start" in item.note for item in got)


async def test_strict_refuses_what_would_be_cut_and_otherwise_it_is_marked(
    harness: Any, short_colbert: ColBERTModel, short_reader: CrossEncoderModel, passages: list[Passage]
) -> None:
    chosen = long_passages(passages)
    for component, model in (
        (harness.colbert_rerank, short_colbert),
        (harness.cross_encoder_rerank, short_reader),
    ):
        strict, lenient = component(model=model, top_n=None, strict=True), component(model=model, top_n=None)
        with pytest.raises(TextTooLongError, match="number 0 \\('long0'\\)"):
            harness.rerank(strict, harness.candidates(chosen), QUERY)
        with pytest.raises(TextTooLongError, match="strict is True"):
            await harness.arerank(strict, harness.candidates(chosen), QUERY)
        with pytest.warns(TruncationWarning, match="6 of 7"):
            got = harness.noted(lenient, harness.candidates(chosen), QUERY)
        assert got == noted_of_hits(rerank(QUERY, chosen, model))
        assert {item.id for item in got if item.note.get("truncated")} == {item.id for item in chosen} - {
            passages[0].id
        }
        short = passages[:3]
        got = harness.noted(component(model=model, strict=True), harness.candidates(short), QUERY)
        assert got == noted_of_hits(rerank(QUERY, short, model))


def test_threshold_is_inclusive_and_the_cores(harness: Any, colbert: ColBERTModel, passages: list[Passage]) -> None:
    chosen = candidates_of(passages)
    third = rerank(QUERY, chosen, colbert)[2].score
    reranker = harness.colbert_rerank(model=colbert, top_n=None, score_threshold=third)
    got = harness.noted(reranker, harness.candidates(chosen), QUERY)
    assert len(got) == 3
    assert got == noted_of_hits(rerank(QUERY, chosen, colbert, threshold=third))
    nothing = harness.colbert_rerank(model=colbert, score_threshold=1000.0)
    assert harness.rerank(nothing, harness.candidates(chosen), QUERY) == []


def test_mean_scale(harness: Any, colbert: ColBERTModel, passages: list[Passage]) -> None:
    chosen = candidates_of(passages)
    sums, means = (
        harness.noted(harness.colbert_rerank(model=colbert, top_n=None, **scale), harness.candidates(chosen), QUERY)
        for scale in ({}, {"scale": "mean"})
    )
    assert means == noted_of_hits(rerank(QUERY, chosen, ColBERTScorer(colbert, scale="mean")))
    tokens = len(colbert.encode_queries([QUERY])[0])
    assert [item.score for item in means] == pytest.approx([item.score / tokens for item in sums])
    assert {item.note["score_scale"] for item in sums} == {"maxsim_sum"}
    assert {item.note["score_scale"] for item in means} == {"maxsim_mean"}


@pytest.mark.parametrize(("activation", "scale"), [("raw", "logit"), ("sigmoid", "probability")])
def test_scale_of_a_cross_encoder(
    harness: Any, cross_encoder_dir: Path, passages: list[Passage], activation: str, scale: str
) -> None:
    model = CrossEncoderModel(str(cross_encoder_dir), dtype="float32", device="cpu", activation=activation)
    got = harness.noted(harness.cross_encoder_rerank(model=model), harness.candidates(passages[:4]), QUERY)
    assert {item.note["score_scale"] for item in got} == {scale}


@pytest.mark.parametrize("most", [0, 1, 5, 100])
def test_max_candidates(harness: Any, passages: list[Passage], most: int) -> None:
    chosen, model = candidates_of(passages), Counting()
    reranker = harness.cross_encoder_rerank(model=model, top_n=None, max_candidates=most)
    got = harness.noted(reranker, harness.candidates(chosen), QUERY)
    assert model.texts == [passage.text for passage in chosen[:most]]
    assert got == noted_of_hits(rerank(QUERY, chosen[:most], Counting()))


def test_text_that_is_scored(
    harness: Any, colbert: ColBERTModel, index: ColBERTIndex, cross_encoder: CrossEncoderModel, passages: list[Passage]
) -> None:
    chosen = candidates_of(passages, 6)
    shown = [
        Passage(item.id, f"year: {item.metadata['year']}\ntags: {item.metadata['tags']}\n\n{item.text}")
        for item in chosen
    ]
    spy = Counting()
    spying = harness.cross_encoder_rerank(model=spy, **harness.text_with_metadata)
    harness.rerank(spying, harness.candidates(chosen), QUERY)
    assert spy.texts == [item.text for item in shown]
    for reranker, scorer in (
        (harness.cross_encoder_rerank(model=cross_encoder, top_n=None, **harness.text_with_metadata), cross_encoder),
        # Not the text that the index holds, so it is encoded.
        (harness.colbert_rerank(model=colbert, index=index, top_n=None, **harness.text_with_metadata), colbert),
    ):
        got = harness.noted(reranker, harness.candidates(chosen), QUERY)
        assert got == noted_of_hits(rerank(QUERY, shown, scorer))


def test_vectors_come_from_the_index_the_cache_or_the_model(
    harness: Any, colbert: ColBERTModel, index: ColBERTIndex, passages: list[Passage]
) -> None:
    chosen = [passages[0], Passage("new", "Not in the index.")]
    caching, forgetful = (
        harness.colbert_rerank(model=colbert, index=index, top_n=None, **cache) for cache in ({}, {"cache_bytes": 0})
    )

    def sources(reranker: Any) -> dict[str, str]:
        noted = harness.noted(reranker, harness.candidates(chosen), QUERY)
        return {item.id: item.note["vectors_from"] for item in noted}

    assert [sources(caching)["new"] for _ in range(3)] == ["encoded", "cached", "cached"]
    assert [sources(forgetful)["new"] for _ in range(2)] == ["encoded", "encoded"]
    assert sources(caching)[passages[0].id] == "stored"
    first, again = (harness.rerank(caching, harness.candidates(chosen), QUERIES[1]) for _ in range(2))
    assert first == again == harness.rerank(forgetful, harness.candidates(chosen), QUERIES[1])


def test_every_option_of_the_core_is_a_field_of_the_components(
    harness: Any, colbert: ColBERTModel, cross_encoder: CrossEncoderModel
) -> None:
    for component, options in (
        (harness.colbert_rerank(model=colbert), ColBERTRerankOptions),
        (harness.cross_encoder_rerank(model=cross_encoder), RerankOptions),
    ):
        names = {"score_threshold" if field.name == "threshold" else field.name for field in fields(options)}
        assert names <= set(type(component).model_fields)


def test_device(harness: Any, colbert_dir: Path, cross_encoder_dir: Path, passages: list[Passage]) -> None:
    for component, folder in (
        (harness.colbert_rerank, colbert_dir),
        (harness.cross_encoder_rerank, cross_encoder_dir),
    ):
        for model in (folder, str(folder), {"name_or_path": str(folder)}):
            assert component(model=model, device="meta").model.device == "meta"
        on_cpu = component(model=str(folder), device="cpu")
        assert component(model=on_cpu.model, device="cpu").model is on_cpu.model
        assert len(harness.rerank(on_cpu, harness.candidates(passages[:2]), QUERY)) == 2


def test_a_fitted_threshold_is_one_of_the_component(harness: Any, passages: list[Passage]) -> None:
    pairs = [("q", "a" * length, length > 4) for length in range(1, 9)]
    fit = fit_threshold(harness.cross_encoder_rerank(model=Counting()), pairs, precision=1.0)
    assert fit.threshold == 5.0
    reranker = harness.cross_encoder_rerank(model=Counting(), top_n=None, score_threshold=fit.threshold)
    chosen = [Passage(text, text) for _, text, _ in pairs]
    assert len(ids(harness.rerank(reranker, harness.candidates(chosen), "q"))) == 4


async def test_a_candidate_that_comes_again_is_reranked_once(harness: Any, passages: list[Passage]) -> None:
    """Several retrievers, or several queries, find the same passage."""
    changed = Passage(passages[1].id, "Another text under the id of the second.", passages[1].metadata)
    found = harness.candidates([passages[0], passages[1], passages[0], changed, passages[1]])
    reranker = harness.cross_encoder_rerank(model=Counting(), top_n=None)
    cascade = harness.cascade_rerank(stages=[reranker])
    expected = sorted((passage.text for passage in [passages[0], passages[1], changed]), key=len, reverse=True)
    for component in (reranker, cascade):
        assert [row.text for row in harness.rerank(component, found, QUERY)] == expected
        assert [row.text for row in await harness.arerank(component, found, QUERY)] == expected
    first = harness.cross_encoder_rerank(model=Counting(), top_n=None, max_candidates=2)
    assert {row.id for row in harness.rerank(first, [found[0], found[2], found[1]], QUERY)} == {
        passages[0].id,
        passages[1].id,
    }
