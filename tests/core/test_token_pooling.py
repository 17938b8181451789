"""Token pooling: what an index stores of a passage, and who has to know of it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from row_encoder import RowEncoder, numbered
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial.distance import pdist
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, ColBERTScorer, IndexFormatError, InvalidInputError, Passage, rerank

WORDS = ["red", "green", "blue", "fox", "frog", "whale", "zebra", "river", "stone", "cloud"]
TEXTS = {
    "long": " ".join(WORDS * 3 + [f"word{number}" for number in range(31)]),
    "short": "a red fox",
    "one": "whale",
    "empty": "",
    **{f"p{number}": " ".join(f"w{number * step % 89}" for step in range(1, number)) for number in range(2, 40)},
}


def reference(vectors: NDArray[np.float32], factor: float) -> NDArray[np.float64]:
    """Return the first vector and the unit means of Ward's clusters of the others, in any order."""
    first, others = vectors[:1].astype(np.float64), vectors[1:].astype(np.float64)
    count = max(int(len(others) // factor), 1)
    if count >= len(others):
        return vectors.astype(np.float64)
    labels = fcluster(ward(np.maximum(pdist(others, "cosine"), 0)), count, "maxclust")
    means = np.stack([others[labels == label].mean(axis=0) for label in np.unique(labels)])
    return np.concatenate([first, means / np.linalg.norm(means, axis=1, keepdims=True)])


def by_size(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors[np.lexsort(np.round(vectors, 2).T)]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(tmp_path / "index", ToyEncoder(), pool_factor=2) as index:
        index.upsert([Passage(key, text) for key, text in TEXTS.items()])
        yield index


@pytest.mark.parametrize("factor", [1.5, 2, 3, 100], ids=str)
def test_stored_vectors_are_means_of_wards_clusters(factor: float) -> None:
    encoder = RowEncoder(length=60)
    passages = numbered(range(20))
    with ColBERTIndex.create(None, encoder, pool_factor=factor) as index:
        index.upsert(passages)
        stored = index.stored_vectors([passage.id for passage in passages])
        for passage, vectors in zip(passages, encoder.encode_documents([p.text for p in passages]), strict=True):
            expected = reference(vectors, factor)
            assert stored[passage.id].shape == expected.shape == (1 + max(int(59 // factor), 1), encoder.dim)
            assert by_size(stored[passage.id]) == pytest.approx(by_size(expected), abs=2e-3)
        assert index.stats().pool_factor == index.pool_factor == factor
        assert index.stats().tokens == sum(map(len, stored.values()))


def test_search_and_rerank_score_the_stored_vectors(made: ColBERTIndex) -> None:
    stored = made.stored_vectors(TEXTS)
    assert {key: len(vectors) for key, vectors in stored.items() if key[0] != "p"} == {
        "long": 31, "short": 2, "one": 1, "empty": 0,
    }  # fmt: skip
    (query,) = ToyEncoder().encode_queries(["red whale w7 w30"])
    expected = {
        key: float((query.astype(np.float64) @ vectors.T).max(axis=1, initial=-1.0).sum())
        for key, vectors in stored.items()
    }
    for hits in (made.search("red whale w7 w30", 100), made.rerank("red whale w7 w30", TEXTS)):
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)


def test_later_passages_are_pooled_too(made: ColBERTIndex) -> None:
    before = made.stored_vectors(["long"])["long"]
    made.close()
    with ColBERTIndex.open(made.path, ToyEncoder()) as index:
        index.upsert([Passage("again", TEXTS["long"]), Passage("long", TEXTS["long"], {"seen": True})])
        after = index.stored_vectors(["long", "again"])
        assert (after["long"] == before).all() and (after["again"] == before).all()
        index.delete(["short"])
        index.compact()
        index.verify()
    with ColBERTIndex.create(made.path, ToyEncoder(), overwrite=True) as index:
        index.upsert([TEXTS["long"]])
        assert (index.stats().pool_factor, index.stats().tokens) == (1.0, 61)


@pytest.mark.slow
def test_a_compressed_index_is_pooled() -> None:
    encoder = RowEncoder()
    with ColBERTIndex.create(None, encoder, pool_factor=2) as index:
        index.upsert(numbered(range(4200)))
        index.upsert(numbered(range(4200, 4230)))
        assert (index.stats().kind, index.stats().tokens) == ("plaid", 6 * 4230)
        index.compact()
        assert index.verify().tokens == 6 * 4230
        hits = index.search("4207", 5)
        assert hits[0].id == "r04207"
        assert index.rerank("4207", [hit.id for hit in hits]) == hits


# --- the record ---


def facts(path: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as catalog:
        return dict(catalog.execute("SELECT key, value FROM meta"))


def test_the_factor_is_in_the_catalog(made: ColBERTIndex, tmp_path: Path) -> None:
    assert (facts(made.path)["format"], facts(made.path)["pool_factor"]) == ("4", "2")
    with ColBERTIndex.create(tmp_path / "plain", ToyEncoder(), pool_factor=1) as plain:
        assert "pool_factor" not in facts(plain.path)


@pytest.mark.parametrize("value", ["0", "1", "x", "", "1e9", "101", "2.", "nan"], ids=str)
def test_a_damaged_factor_is_refused(made: ColBERTIndex, value: str) -> None:
    made.close()
    with contextlib.closing(sqlite3.connect(made.path / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE meta SET value = ? WHERE key = 'pool_factor'", (value,))
    with pytest.raises(IndexFormatError, match="damaged"):
        ColBERTIndex.open(made.path, ToyEncoder())


def test_one_factor_per_index(made: ColBERTIndex) -> None:
    path = made.path
    made.close()
    for factor in (None, 2, 2.0):
        with ColBERTIndex.open_or_create(path, ToyEncoder(), pool_factor=factor) as index:
            assert index.pool_factor == 2
    with pytest.raises(InvalidInputError, match=r"pool_factor is 3; .* was made with 2\. Leave pool_factor out"):
        ColBERTIndex.open_or_create(path, ToyEncoder(), pool_factor=3)


@pytest.mark.parametrize("value", [0, 0.5, -2, 101, True, "2", None, float("nan"), float("inf")], ids=str)
def test_a_bad_factor_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"pool_factor is .*; expected a number from 1 to 100"):
        ColBERTIndex.create(tmp_path / "index", ToyEncoder(), pool_factor=value)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("scale", [3.0, 0.5], ids=str)
def test_vectors_of_other_lengths_are_refused(scale: float) -> None:
    with ColBERTIndex.create(None, RowEncoder(scale=scale), pool_factor=2) as index:
        with pytest.raises(InvalidInputError, match=r"vector of length .*; expected vectors of length 1"):
            index.upsert(["7"])
        assert len(index) == 0


# --- reranking ---


def test_candidates_that_are_not_stored_are_pooled_as_well(made: ColBERTIndex) -> None:
    """A passage has one score, whether the index has it or not."""
    query, scorer = "red whale w7 w30", ColBERTScorer(made.model, made)
    candidates = [Passage(key, text) for key, text in TEXTS.items()]
    unknown = [Passage(f"other-{key}", text) for key, text in TEXTS.items()]
    for _ in range(2):
        stored, encoded = rerank(query, candidates, scorer), rerank(query, unknown, scorer)
        assert [f"other-{hit.id}" for hit in stored] == [hit.id for hit in encoded]
        assert [hit.score for hit in stored] == pytest.approx([hit.score for hit in encoded], abs=2e-3)
        assert {hit.note["pool_factor"] for hit in [*stored, *encoded]} == {2.0}
    assert {hit.note["vectors_from"] for hit in stored} == {"stored"}
    assert {hit.note["vectors_from"] for hit in encoded} == {"cached"}


def test_a_scorer_without_an_index_pools_nothing() -> None:
    hits = rerank("red", list(TEXTS.values()), ColBERTScorer(ToyEncoder()))
    assert all("pool_factor" not in hit.note for hit in hits)


def test_the_cache_follows_an_index_that_is_overwritten(made: ColBERTIndex) -> None:
    encoder = ToyEncoder()
    with ColBERTIndex.open(made.path, encoder, read_only=True) as reader:
        scorer = ColBERTScorer(encoder, reader)
        made.close()
        query, passage = "red whale", Passage("new", TEXTS["long"])
        (pooled,) = rerank(query, [passage], scorer)
        ColBERTIndex.create(made.path, ToyEncoder(), overwrite=True).close()
        (whole,) = rerank(query, [passage], scorer)
        assert (pooled.note["pool_factor"], whole.note.get("pool_factor")) == (2.0, None)
        assert whole.score == pytest.approx(2, abs=1e-3) and pooled.score < whole.score
