"""Hybrid search: candidates of both searches, both true scores, and their weighted sum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from grown import small_copy
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, Hit, IndexFormatError, IndexReadOnlyError, InvalidInputError, Passage

WORDS = ["red", "green", "blue", "fox", "frog", "whale", "river", "stone", "cloud", "field"]
PASSAGES = [
    Passage(f"p{n:03}", f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} {WORDS[n * 7 % 9]} {'x' * (n % 4)}", {"n": n})
    for n in range(300)
]
QUERY = "red fox in the river"


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        yield index


def expected_scores(index: ColBERTIndex, query: str, weight: float, **options: object) -> dict[str, float]:
    """Return the scores of all candidates from the two searches by themselves."""
    colbert = {hit.id: hit.score for hit in index.search(query, len(index), exact=True, **options)}  # type: ignore[arg-type]
    bm25 = {hit.id: hit.score for hit in index.search(query, len(index), search_type="bm25", **options)}  # type: ignore[arg-type]
    best_of_colbert = sorted(colbert, key=lambda key: (-colbert[key], key))[:100]
    best_of_bm25 = sorted(bm25, key=lambda key: (-bm25[key], key))[:100]
    high, low = colbert[best_of_colbert[0]], colbert[best_of_colbert[-1]]
    top = max(bm25.values(), default=1.0)
    return {
        key: (1 - weight) * (1 + (colbert[key] - high) / ((high - low) or 1.0)) + weight * bm25.get(key, 0.0) / top
        for key in {*best_of_colbert, *best_of_bm25}
    }


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("options", [{}, {"where": {"n": {"$gte": 250}}}], ids=["all", "filtered"])
def test_the_score_is_the_weighted_sum(index: ColBERTIndex, weight: float, options: dict[str, object]) -> None:
    expected = expected_scores(index, QUERY, weight, **options)
    hits = index.search(QUERY, 20, search_type="hybrid", bm25_weight=weight, **options)  # type: ignore[arg-type]
    order = sorted(expected, key=lambda key: (-round(expected[key], 9), key))
    assert [hit.id for hit in hits] == order[:20]
    assert [hit.score for hit in hits] == pytest.approx([expected[hit.id] for hit in hits], abs=1e-6)
    assert [hit.rank for hit in hits] == list(range(1, 21))


def test_the_weights_at_the_ends_are_the_parts(index: ColBERTIndex) -> None:
    by_colbert = index.search(QUERY, 20, search_type="hybrid", bm25_weight=0)
    assert [hit.id for hit in by_colbert] == [hit.id for hit in index.search(QUERY, 20)]
    by_bm25 = index.search(QUERY, 20, search_type="hybrid", bm25_weight=1)
    assert [hit.id for hit in by_bm25] == [hit.id for hit in index.search(QUERY, 20, search_type="bm25")]
    assert by_colbert[0].score == by_bm25[0].score == 1.0


def test_a_hit_has_both_true_scores(index: ColBERTIndex) -> None:
    colbert = {hit.id: hit.score for hit in index.search(QUERY, 300)}
    bm25 = {hit.id: hit.score for hit in index.search(QUERY, 300, search_type="bm25")}
    for hit in index.search(QUERY, 150, search_type="hybrid", bm25_weight=0.5):
        assert hit.note == {
            "search_type": "hybrid",
            "colbert_score": pytest.approx(colbert[hit.id], abs=1e-6),
            "bm25_score": pytest.approx(bm25.get(hit.id, 0.0)),
            "bm25_weight": 0.5,
        }
        assert hit.to_dict()["note"] == hit.note


def test_fewer_hits_are_the_first_of_more(index: ColBERTIndex) -> None:
    many = index.search(QUERY, 100, search_type="hybrid")
    for k in (1, 7, 50):
        assert index.search(QUERY, k, search_type="hybrid") == many[:k]
    assert index.search(QUERY, 0, search_type="hybrid") == []
    assert len(index.search(QUERY, 1000, search_type="hybrid")) == 300


def test_a_query_without_known_words(index: ColBERTIndex) -> None:
    hits = index.search("unknown words", 300, search_type="hybrid")
    assert [hit.id for hit in hits] == [hit.id for hit in index.search("unknown words", 300)]
    assert index.search("  ", 3, search_type="hybrid") == []


def test_of_a_compressed_index(tmp_path: Path) -> None:
    with ColBERTIndex.open(small_copy(tmp_path / "index"), ToyEncoder()) as index:
        assert index.stats().kind == "plaid"
        for weight in (0.0, 0.4, 1.0):
            expected = expected_scores(index, "red fox 3", weight)
            hits = index.search("red fox 3", 10, search_type="hybrid", bm25_weight=weight)
            assert [hit.score for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True)[:10], abs=1e-6)


def test_encoded_queries(index: ColBERTIndex) -> None:
    vectors = index.encode_query(QUERY)
    assert index.search_encoded(vectors, 5, text=QUERY, bm25_weight=0.4) == index.search(
        QUERY, 5, search_type="hybrid", bm25_weight=0.4
    )
    with pytest.raises(InvalidInputError, match="bm25_weight"):
        index.search_encoded(vectors, 5, bm25_weight=0.4)


def test_parts_make_the_score_of_any_weight(index: ColBERTIndex) -> None:
    parts = index.hybrid_parts(QUERY)
    for weight in (0.1, 0.9):
        hits = index.search(QUERY, 10, search_type="hybrid", bm25_weight=weight)
        assert [parts[hit.id].score(weight) for hit in hits] == [hit.score for hit in hits]


# --- the weight ---


def weights(hits: list[Hit]) -> set[float]:
    return {hit.note["bm25_weight"] for hit in hits}


def test_the_stored_weight(tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "index", ToyEncoder()) as index:
        index.upsert(PASSAGES[:5])
        default = index.bm25_weight
        assert weights(index.search(QUERY, search_type="hybrid")) == {default}
        assert index.stats().bm25_weight is None
        with ColBERTIndex.open(tmp_path / "index", ToyEncoder(), read_only=True) as reader:
            index.store_bm25_weight(0.65)
            for either in (index, reader):
                assert either.bm25_weight == either.stats().bm25_weight == 0.65
                assert weights(either.search(QUERY, search_type="hybrid")) == {0.65}
                assert weights(either.search(QUERY, search_type="hybrid", bm25_weight=0.1)) == {0.1}
                either.verify()
            with pytest.raises(IndexReadOnlyError):
                reader.store_bm25_weight(0.5)
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder()) as index:
        assert index.bm25_weight == 0.65
        index.store_bm25_weight(None)
        assert index.bm25_weight == default


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "0.5", True], ids=str)
def test_a_bad_weight_is_refused(index: ColBERTIndex, weight: object) -> None:
    with pytest.raises(InvalidInputError, match="bm25_weight"):
        index.search(QUERY, search_type="hybrid", bm25_weight=weight)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="bm25_weight"):
        index.store_bm25_weight(weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["colbert", "bm25"])
def test_a_weight_without_a_hybrid_search_is_refused(index: ColBERTIndex, kind: str) -> None:
    with pytest.raises(InvalidInputError, match=kind):
        index.search(QUERY, search_type=kind, bm25_weight=0.5)  # type: ignore[arg-type]


def test_a_damaged_weight(tmp_path: Path) -> None:
    import sqlite3

    with ColBERTIndex.create(tmp_path / "index", ToyEncoder()) as index:
        index.upsert(PASSAGES[:5])
    with sqlite3.connect(tmp_path / "index" / "catalog.sqlite") as connection:
        connection.execute("INSERT INTO meta VALUES ('bm25_weight', 'much')")
    connection.close()
    with ColBERTIndex.open(tmp_path / "index", ToyEncoder(), read_only=True) as index:
        with pytest.raises(IndexFormatError, match="'much'"):
            index.search(QUERY, search_type="hybrid")
        assert index.search(QUERY, 2)
