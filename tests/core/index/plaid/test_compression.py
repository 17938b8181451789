"""An index compresses itself past a size, and only the precision of its vectors changes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grown import ENOUGH, KEPT, WORDS, check_nearly, large_copy, many, small_copy
from row_encoder import RowEncoder, numbered
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex, Passage

QUERIES = ["red fox 7", "the whale", "1 2 3 4"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def large(path: Path) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.open(large_copy(path), ToyEncoder()) as index:
        yield index


@pytest.fixture
def small(path: Path) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.open(small_copy(path), ToyEncoder()) as index:
        yield index


def check_holds(index: ColBERTIndex, passages: list[Passage]) -> None:
    """Assert that the index has exactly these passages and returns them in the right order."""
    kept = {passage.id: passage for passage in passages}
    assert index.verify().passages == len(index) == len(kept)
    assert index.get(kept) == list(kept.values())
    for query in QUERIES[:2]:
        check_nearly(query, kept, 20, index)
    everything = index.search("red fox", 10**6)
    assert {hit.id for hit in everything} == set(kept)
    assert index.search("red fox", 10**6, exact=True) == index.rerank("red fox", kept) == everything


# --- when ---


def test_the_4096th_passage_compresses(path: Path) -> None:
    passages, nbits = many(ENOUGH), 4
    with (
        ColBERTIndex.create(path, ToyEncoder(), nbits=nbits) as index,
        ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader,
    ):
        index.upsert(passages[:-1])
        before = reader.search("red fox", 20)
        stats = index.stats()
        assert (stats.kind, stats.nbits, stats.centroids) == ("exact", nbits, 0)
        index.upsert(passages[-1:])
        stats = index.stats()
        # 2^floor(log2(16 sqrt(tokens)))
        assert (stats.kind, stats.nbits, stats.centroids) == ("plaid", nbits, 1024)
        assert reader.stats() == stats
        assert [hit.score for hit in reader.search("red fox", 20)] == pytest.approx(
            [hit.score for hit in before], abs=2e-3
        )
        check_holds(reader, passages)
        check_holds(index, passages)


def test_few_passages_of_many_tokens_compress(path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(1000))
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert([Passage(f"p{number}", words) for number in range(131)])
        assert (index.stats().kind, index.stats().tokens) == ("exact", 131_000)
        index.upsert([Passage("last", words)])
        assert index.stats().kind == "plaid"


@pytest.mark.slow
def test_many_passages_of_few_tokens_stay_exact(path: Path) -> None:
    """Centroids of fewer than 4096 tokens would be useless."""
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert([Passage(f"p{number}", "word" if number < 4000 else "...") for number in range(ENOUGH + 300)])
        assert index.stats().kind == "exact"
        index.upsert([Passage(f"more{number}", "word") for number in range(96)])
        assert index.stats().kind == "plaid"
        hits = index.search("word", 10**6)
        assert len(hits) == len(index)
        assert [hit.score for hit in hits[4096:]] == [-1.0] * 396


@pytest.mark.slow
def test_many_small_upserts_compress_too(path: Path) -> None:
    passages = many(ENOUGH + 404)
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        for start in range(0, len(passages), 150):
            index.upsert(passages[start : start + 150])
            assert index.stats().kind == ("plaid" if start + 150 >= ENOUGH else "exact")
        check_holds(index, passages)


@pytest.mark.slow
def test_an_index_that_has_outgrown_its_centroids_trains_others(path: Path) -> None:
    """The old passages keep their codes and scores, and a search returns both kinds."""
    old = [Passage(f"old{number}", WORDS[number % 48], {"n": number}) for number in range(ENOUGH)]
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(old)
        first = index.stats()
        before = {query: index.search(query, 10**6) for query in QUERIES}
        # Words of its own, which the first centroids never saw.
        new = [Passage(f"new{n}", f"{WORDS[n % 48]} late{n % 50} later{n % 7}") for n in range(4100)]
        index.upsert(new)
        assert index.stats().centroids > first.centroids
        last = [Passage(f"last{number}", f"late{number} later1") for number in range(50)]
        index.upsert(last)
        assert len(list((path / "codecs").iterdir())) == 2
        for query in QUERIES:
            after = [(hit.id, hit.score) for hit in index.rerank(query, [passage.id for passage in old])]
            assert after == [(hit.id, hit.score) for hit in before[query]]
        passages = [*old, *new, *last]
        best = index.search("late7 later1", 1)[0]
        assert "late7 later1" in best.text
        assert best.score == pytest.approx(2, abs=0.1)
        assert len(index.search("red", 10**6)) == len(index) == index.verify().passages == len(passages)
        index.compact()
        assert len(index.search("red", 10**6)) == len(passages)
        index.delete([passage.id for passage in [*old, *new[:-1]]])
        index.compact()
        assert len(index.search("red", 100)) == len(last) + 1


# --- what goes on as before ---


def test_words_that_the_centroids_never_saw_are_told_apart(large: ColBERTIndex) -> None:
    """An index compressed early, from repetitive text, must also fit text that comes later."""
    large.upsert([Passage("new", "zebra lion"), Passage("newer", "tiger"), Passage("newest", "lynx puma ocelot")])
    for query, best in [("zebra lion", "new"), ("tiger", "newer"), ("ocelot puma", "newest")]:
        hits = large.search(query, 2)
        assert hits[0].id == best
        # 2 bits a dimension lose some of it.
        assert hits[0].score == pytest.approx(len(query.split()), abs=0.1)


@pytest.mark.slow
def test_everything_is_replaced_and_deleted(large: ColBERTIndex) -> None:
    others = [Passage(passage.id, f"{passage.text} whale") for passage in many(ENOUGH, seed=1)]
    large.upsert(others)
    check_holds(large, others)
    assert large.delete([passage.id for passage in others]) == ENOUGH
    assert large.search("red fox", exact=True) == large.search("red fox") == large.rerank("red", ["g1"]) == []
    assert (large.verify().passages, large.stats().segments) == (0, 0)
    large.compact()
    again = many(300, seed=2)
    large.upsert(again)
    check_holds(large, again)


def test_passages_and_queries_without_tokens(small: ColBERTIndex) -> None:
    empty = [Passage(f"none{number}", "...") for number in range(3)]
    small.upsert(empty)
    hits = small.search("red fox", 100)
    assert [(hit.id, hit.score) for hit in hits[-3:]] == [(passage.id, -2.0) for passage in empty]
    ranked = small.search("?!", 100)
    assert [(hit.id, hit.score) for hit in ranked] == [(key, 0.0) for key in sorted([*KEPT, *(p.id for p in empty)])]
    assert small.rerank("?!", KEPT, k=3) == ranked[:3]
    assert small.search("?!", 5, exact=True) == ranked[:5]


@pytest.mark.slow
def test_a_very_long_passage(small: ColBERTIndex) -> None:
    long = Passage("long", " ".join(f"{WORDS[number % 48]} {WORDS[number % 7]}" for number in range(35_000)))
    small.upsert([long, Passage("short", "17 23")])
    check_nearly("17 23", {**KEPT, "long": long, "short": Passage("short", "17 23")}, 42, small)
    small.compact()
    assert small.search("17 23", 2)[0].score == small.search("17 23", 2)[1].score
    small.delete(["long"])
    assert [hit.id for hit in small.search("17 23", 1)] == ["short"]


def test_a_query_of_many_tokens(small: ColBERTIndex) -> None:
    check_nearly(" ".join(WORDS * 3), KEPT, 40, small)


def test_equal_texts_tie_by_id_wherever_they_are_stored(large: ColBERTIndex) -> None:
    """Scores are equal to the last bit in separate or joined segments, before and after the compression."""
    ids = [f"same{number:02}" for number in range(12)]
    text = "red 1 fox 2 whale 3 zebra"
    for number, key in enumerate(reversed(ids)):
        large.upsert([*many(1 + 7 * number, f"filler{number}-"), Passage(key, text)])
    for _ in range(2):
        for query in ("zebra 3", " ".join(WORDS[:20])):
            hits = large.search(query, 12, ids=ids)
            assert [hit.id for hit in hits] == ids
            assert len({hit.score for hit in hits}) == 1
        assert [hit.id for hit in large.search(text, 5)] == ids[:5]
        large.compact()


@pytest.mark.slow
def test_real_vectors_tie_wherever_they_are_stored(path: Path) -> None:
    """Rounding in a matrix product must not change the codes of vectors that are not their own centroid."""
    encoder = RowEncoder(dim=20, length=3)
    same = [Passage(f"same{number:02}", "77") for number in range(20)]
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert([same[0], *numbered(range(ENOUGH)), same[1]])
        for number, passage in enumerate(same[2:]):
            index.upsert([*numbered(range(5000, 5000 + number * 3)), passage])
        hits = index.search("77", 20, ids=[passage.id for passage in same])
        assert [hit.id for hit in hits] == [passage.id for passage in same]
        assert len({hit.score for hit in hits}) == 1


def test_an_overwritten_index_is_exact_again(large: ColBERTIndex, path: Path) -> None:
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader:
        assert len(reader.search("red fox", 10**6)) == ENOUGH
        large.close()
        with ColBERTIndex.create(path, ToyEncoder(), nbits=4, overwrite=True) as index:
            assert (index.stats().kind, index.stats().nbits, len(index)) == ("exact", 4, 0)
            assert [list((path / name).iterdir()) for name in ("segments", "codecs")] == [[], []]
            assert reader.search("red fox") == []
            index.upsert(many(20))
            assert len(reader.search("red fox", 10**6)) == 20


# --- threads ---


@pytest.mark.slow
def test_threads_search_while_the_index_is_compressed(path: Path) -> None:
    """Each answer is of one commit: as many passages as there were at one moment, and none twice."""
    errors: list[BaseException] = []
    kinds: set[str] = set()
    stop = threading.Event()
    passages = many(4200)
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(passages[:4000])

        def read(k: int) -> None:
            try:
                while not stop.wait(0.05):
                    least = len(index)
                    hits = index.search("red fox 7", k)
                    assert min(k, least) <= len(hits) == len({hit.id for hit in hits}) <= min(k, len(index))
                    if k > len(hits):
                        assert {hit.id for hit in hits} == {passage.id for passage in passages[: len(hits)]}
                    kinds.add(index.stats().kind)
            except BaseException as error:
                errors.append(error)

        # One of them takes all there is.
        threads = [threading.Thread(target=read, args=(k,)) for k in [10**6] + [7] * 15]
        for thread in threads:
            thread.start()
        stop.wait(0.3)
        for start in range(4000, 4200, 100):
            index.upsert(passages[start : start + 100])
        stop.wait(0.3)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert kinds == {"exact", "plaid"}


def test_threads_find_what_one_finds(large: ColBERTIndex) -> None:
    queries = [passage.text for passage in many(64, seed=3)]
    alone = [large.search(query, 10) for query in queries]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda query: large.search(query, 10), queries * 4)) == alone * 4
    assert large.search_many(queries, 10) == alone


# --- processes that fork ---

FORK = """
import os, signal, sys
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, Passage
def change(prefix):
    with ColBERTIndex.open(sys.argv[1], ToyEncoder()) as index:
        index.upsert([Passage(f"{prefix}{number}", f"zebra {number % 40}") for number in range(3000)])
        return index.search("zebra 7", 10), len(index)
change("parent")
if os.fork() == 0:
    signal.alarm(40)
    found, count = change("child")
    print(count, found[0].text, flush=True)
    os._exit(0)
assert os.wait()[1] == 0
print(len(change("parent")[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_writes_a_compressed_index(path: Path) -> None:
    """OpenMP's threads do not survive a fork, and GNU's library then waits for them without end."""
    ran = subprocess.run(
        [sys.executable, "-c", FORK, str(large_copy(path))],
        capture_output=True, text=True, env=child_env(), check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{ENOUGH + 6000} zebra 7", "10"]
