"""An index through its public interface, compared with brute force over the same vectors."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyEncoder, check_hits
from toy_corpus import QUERIES, as_passages, corpus

from rerank_integrations import (
    ColBERTIndex,
    Hit,
    Passage,
    VerifyReport,
)


@pytest.fixture
def encoder() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: ToyEncoder) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(tmp_path / "index", encoder) as index:
        yield index


# --- search ---


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_search_is_brute_force_maxsim(index: ColBERTIndex, encoder: ToyEncoder, query: str, k: int) -> None:
    index.upsert(as_passages(corpus()))
    hits = index.search(query, k)
    check_hits(encoder, query, corpus(), k, hits)
    assert all(type(hit.score) is float for hit in hits)


@pytest.mark.slow
def test_search_over_many_segments_and_blocks_is_brute_force(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    """Long passages: several blocks per segment, several segments, and replaced passages in each."""
    random = np.random.default_rng(5)
    words = np.array([f"word{number}" for number in range(500)])
    texts = {f"p{number:04}": " ".join(random.choice(words, random.integers(0, 150))) for number in range(700)}
    index.upsert(
        as_passages({key: "an older text" if number % 7 == 0 else texts[key] for number, key in enumerate(texts)})
    )
    index.upsert(as_passages({key: text for number, (key, text) in enumerate(texts.items()) if number % 7 == 0}))
    assert index.stats().segments > 1
    for query in ["word1 word2 word3", "word499"]:
        check_hits(encoder, query, texts, 25, index.search(query, 25))
        # Scores that nearly tie are cut by their exact order, the same for every k.
        everything = index.search(query, len(texts))
        for k in range(1, 80):
            assert index.search(query, k) == everything[:k]
        odd = {key: text for number, (key, text) in enumerate(texts.items()) if number % 3 == 1}
        check_hits(encoder, query, odd, 25, index.search(query, 25, ids=odd))


def test_equal_texts_tie_by_id_wherever_they_are_stored(index: ColBERTIndex) -> None:
    """Neighbours, segment and offset differ, and the score must be equal to the last bit."""
    random = np.random.default_rng(1)
    text = " ".join(f"w{number}" for number in range(23))
    ids = [f"same{number:02}" for number in range(12)]
    for number in random.permutation(len(ids)):
        filler = [" ".join(f"f{word}" for word in random.integers(0, 99, random.integers(1, 40))) for _ in range(9)]
        index.upsert([*filler, Passage(ids[number], text)])
    for query in ("w3", "w3 w4 nothing", " ".join(f"w{number} x{number}" for number in range(40))):
        hits = index.search(query, len(ids))
        assert [hit.id for hit in hits] == ids
        assert len({hit.score for hit in hits}) == 1
        # A cut through the tie keeps the first ids.
        assert [hit.id for hit in index.search(query, 5)] == ids[:5]


def test_of_many_equal_passages_only_those_asked_for_are_read(index: ColBERTIndex) -> None:
    """Boilerplate is stored many times: its texts came as one value, which may not be longer than a gigabyte."""
    text = "header " + "." * 100_000
    index.upsert(Passage(f"p{number:03}", text) for number in reversed(range(150)))
    index.upsert([Passage("best", "header header", {"a": [1, None]})])
    index.search("header", 1)
    tracemalloc.start()
    try:
        hits = index.search("header", 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(hit.id, hit.rank) for hit in hits] == [("best", 1), ("p000", 2)]
    assert hits[1].text == text
    assert peak < 10 * len(text)
    assert [hit.id for hit in index.rerank("header", [f"p{number:03}" for number in range(150)], 3)] == [
        "p000", "p001", "p002",
    ]  # fmt: skip


def test_long_and_short_passages_come_whole(index: ColBERTIndex) -> None:
    """Short passages are read many at a time, long ones one by one."""
    passages = [
        Passage("long", "word " + "x" * 100_000, {"n": 1}),
        Passage("long metadata", "word", {"n": ["y" * 50_000, {"z": None}]}),
        Passage("short", 'word "quoted" \\ \n ü 漢 \x01', {"ü": True, "f": 1.5}),
        *(Passage(f"p{number:04}", f"word {number}", {"n": number}) for number in range(1100)),
    ]
    index.upsert(passages)
    hits = index.search("word", 2000)
    assert {hit.id: Passage(hit.id, hit.text, hit.metadata) for hit in hits} == {p.id: p for p in passages}


def test_search_many_is_a_loop_of_search(index: ColBERTIndex) -> None:
    index.upsert(as_passages(corpus()))
    queries = [*QUERIES, "", QUERIES[0], " \t"]
    for where in (None, {"number": {"$lt": 20}}):
        expected = [index.search(query, 7, where=where) for query in queries]
        assert index.search_many(queries, 7, where=where) == expected
        assert index.search_many((query for query in queries), 7, where=where) == expected
    assert index.search_many([]) == []


def test_k_is_a_ceiling(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    index.upsert(as_passages(corpus()))
    assert len(index.search("zip")) == 10
    assert index.search("zip", 0) == []
    assert index.search_many(["zip", "rain"], 0) == [[], []]
    assert encoder.asked == ["zip"]
    assert len(index.search("zip", 10**9)) == len(corpus())


@pytest.mark.parametrize("query", ["", "  ", "\n\t "])
def test_a_query_without_text_finds_nothing(index: ColBERTIndex, query: str) -> None:
    index.upsert(["a text"])
    assert index.search(query) == []
    assert index.search_many([query, "text"])[0] == []


def test_a_query_without_vectors_ranks_by_id(index: ColBERTIndex) -> None:
    index.upsert([Passage("b", "one"), Passage("a", "two"), Passage("c", "...")])
    assert [(hit.id, hit.score) for hit in index.search("?!", 2)] == [("a", 0.0), ("b", 0.0)]


def test_an_empty_index_answers(index: ColBERTIndex) -> None:
    assert index.search("anything") == []
    assert index.search_many(["anything", "else"]) == [[], []]
    assert index.search("anything", where={"a": 1}, ids=["b"]) == []
    assert index.rerank("anything", ["a"]) == []
    assert index.get(["a"]) == []
    assert len(index) == 0
    assert "a" not in index
    assert index.delete(["a"]) == 0
    index.compact()
    assert index.verify() == VerifyReport(passages=0, tokens=0, segments=0)
    assert index.upsert([]) == []


def test_where_and_ids_restrict_before_scoring(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    texts = corpus()
    index.upsert(as_passages(texts))
    late = {key: text for place, (key, text) in enumerate(texts.items()) if place >= 40}
    some = {key: texts[key] for key in list(texts)[::3]}
    for query in QUERIES:
        check_hits(encoder, query, late, 8, index.search(query, 8, where={"number": {"$gte": 40}}))
        check_hits(encoder, query, some, 8, index.search(query, 8, ids=some))
        check_hits(encoder, query, some, 8, index.search(query, 8, ids=[*some, *some, "unknown"]))
        both = {key: text for key, text in late.items() if key in some}
        check_hits(encoder, query, both, 8, index.search(query, 8, where={"number": {"$gte": 40}}, ids=iter(some)))
    assert index.search("zip", ids=[]) == []
    assert index.search("zip", where={"number": -1}) == []
    assert index.search("zip", 3, where={}) == index.search("zip", 3)
    assert index.search("zip", 3, exact=True) == index.search("zip", 3)


def test_rerank_scores_stored_vectors_as_search_does(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    texts = corpus()
    index.upsert(as_passages(texts))
    encoder.encoded.clear()
    for query in QUERIES:
        everything = index.search(query, len(texts))
        assert index.rerank(query, texts) == everything
        assert index.rerank(query, texts, k=4) == everything[:4]
        some = list(texts)[5:30:4]
        assert [(hit.id, hit.score) for hit in index.rerank(query, [*some, "unknown", *some])] == [
            (hit.id, hit.score) for hit in everything if hit.id in some
        ]
    assert index.rerank("zip", []) == []
    assert index.rerank("zip", texts, k=0) == []
    assert encoder.encoded == []


def test_hits_are_json_and_their_own(index: ColBERTIndex) -> None:
    index.upsert([Passage("a", "one", {"tags": ["x"], "n": {"m": None}})])
    hit = index.search("one")[0]
    assert json.loads(json.dumps(hit.to_dict())) == hit.to_dict() == {
        "id": "a", "score": pytest.approx(1.0, abs=1e-3), "rank": 1, "text": "one",
        "metadata": {"tags": ["x"], "n": {"m": None}},
    }  # fmt: skip
    hit.metadata["tags"].append("y")
    assert index.search("one")[0].metadata == {"tags": ["x"], "n": {"m": None}}


# --- upsert, delete, get ---


def test_upsert_takes_what_a_passage_can_be_and_returns_the_ids(index: ColBERTIndex) -> None:
    given: list[Any] = [
        Passage("a", "first", {"n": 1}),
        {"text": "second", "id": "b", "metadata": {"n": 2}},
        {"text": "third", "id": "c", "metadata": None},
        Hit("d", 0.5, 3, "fourth", {"n": 4}),
        "fifth",
        {"text": "fifth"},
    ]
    ids = index.upsert(given)
    assert ids[:4] == ["a", "b", "c", "d"]
    assert ids[4] == ids[5]
    assert len(index) == 5
    assert [passage.metadata for passage in index.get(ids[:4])] == [{"n": 1}, {"n": 2}, {}, {"n": 4}]
    assert index.upsert(["fifth"]) == [ids[4]]
    assert len(index) == 5


def test_the_same_id_is_replaced(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    index.upsert([Passage("a", "red fox", {"n": 1, "old": True}), Passage("b", "blue whale")])
    index.upsert([Passage("a", "green frog", {"n": 2})])
    assert len(index) == 2
    assert index.get(["a"]) == [Passage("a", "green frog", {"n": 2})]
    check_hits(encoder, "red fox", {"a": "green frog", "b": "blue whale"}, 5, index.search("red fox", 5))
    assert index.search("red", where={"old": True}) == []


def test_of_equal_ids_in_one_call_the_last_stays(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    assert index.upsert([Passage("a", "one"), Passage("b", "two"), Passage("a", "three")]) == ["a", "b", "a"]
    assert index.get(["a"]) == [Passage("a", "three")]
    assert len(index) == 2
    many = [Passage("a", f"text {number}") for number in range(600)]
    assert index.upsert(many) == ["a"] * 600
    assert index.get(["a"]) == [many[-1]]
    check_hits(encoder, "text 3", {"a": "text 599", "b": "two"}, 5, index.search("text 3", 5))


def test_a_stored_text_is_not_encoded_again(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    index.upsert([Passage("a", "one"), Passage("b", "two")])
    encoder.encoded.clear()
    index.upsert([Passage("a", "one", {"n": 1}), Passage("b", "two"), Passage("c", "three")])
    assert encoder.encoded == ["three"]
    assert index.get(["a"])[0].metadata == {"n": 1}
    assert [hit.id for hit in index.search("one", where={"n": 1})] == ["a"]


def test_upsert_streams(index: ColBERTIndex) -> None:
    """An upsert takes from the iterator only what the next commit needs."""
    taken = 0
    ahead = []

    def endless() -> Iterator[Passage]:
        nonlocal taken
        for number in range(2000):
            ahead.append(taken - len(index))
            taken += 1
            yield Passage(f"p{number}", f"text number {number}")

    assert index.upsert(endless()) == [f"p{number}" for number in range(2000)]
    assert max(ahead) <= 256
    assert len(index) == 2000


def test_a_bad_passage_keeps_the_commits_before_it(index: ColBERTIndex) -> None:
    def passages() -> Iterator[Any]:
        yield from (Passage(f"p{number}", "text") for number in range(256))
        yield Passage("late", "text")
        yield 7

    with pytest.raises(ValueError, match="int"):
        index.upsert(passages())
    assert len(index) == 256
    assert "late" not in index
    index.verify()


def test_an_error_of_the_callers_iterator_passes_through(index: ColBERTIndex) -> None:
    def passages() -> Iterator[str]:
        yield "one"
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        index.upsert(passages())
    assert len(index) == 0
    index.upsert(["two"])
    assert len(index) == 1


def test_upsert_reads_from_the_index_it_writes(index: ColBERTIndex) -> None:
    index.upsert([Passage(f"p{number}", f"text {number}") for number in range(300)])
    ids = [f"p{number}" for number in range(300)]
    index.upsert(Passage(key, index.get([key])[0].text + " more") for key in ids)
    assert index.get(["p7"])[0].text == "text 7 more"
    assert len(index) == 300


def test_no_progress_bar_away_from_a_terminal(index: ColBERTIndex, capfd: pytest.CaptureFixture[str]) -> None:
    index.upsert(["one", "two"])
    index.upsert(["three"], show_progress=False)
    assert capfd.readouterr() == ("", "")
    index.upsert(["four"], show_progress=True)
    assert "passage" in capfd.readouterr().err


def test_delete_counts_what_went(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    texts = corpus()
    index.upsert(as_passages(texts))
    gone = list(texts)[::2]
    assert index.delete([*gone, "unknown", gone[0]]) == len(gone)
    assert index.delete(gone) == 0
    assert index.delete([]) == 0
    left = {key: text for key, text in texts.items() if key not in gone}
    assert len(index) == len(left)
    assert index.get(gone) == []
    check_hits(encoder, "zip file", left, 100, index.search("zip file", 100))
    index.upsert(as_passages({gone[0]: texts[gone[0]]}))
    assert gone[0] in index
    index.delete(texts)
    assert (len(index), index.stats().segments) == (0, 0)
    assert list((index.path / "segments").iterdir()) == []


def test_get_keeps_the_order_asked(index: ColBERTIndex) -> None:
    texts = corpus()
    index.upsert(as_passages(texts))
    asked = ["p007", "unknown", "p003", "p007", "p000"]
    assert [passage.id for passage in index.get(iter(asked))] == ["p007", "p003", "p000"]
    assert [passage.text for passage in index.get(["p003"])] == [texts["p003"]]
    assert "p003" in index
    assert "unknown" not in index
    assert 3 not in index
    assert [] not in index
