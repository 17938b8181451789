"""Reranking from an index's stored vectors and from the cache: scores, encoded texts and notes."""

from __future__ import annotations

import copy
import pickle
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CHINESE, ENGLISH, QUERIES
from hypothesis import given
from hypothesis import strategies as st
from toy import Floats, ToyEncoder, reference_scores

from rerank_integrations import (
    Candidate,
    ColBERTIndex,
    ColBERTModel,
    ColBERTScorer,
    Hit,
    IndexClosedError,
    InvalidInputError,
    ModelMismatchError,
    Passage,
    Reranker,
    rerank,
)
from rerank_integrations.core.reranking.colbert_scorer import VectorCache

TEXTS = (*ENGLISH[::5], *CHINESE[:4])
PASSAGES = [Passage(f"p{number}", text) for number, text in enumerate(TEXTS)]


@pytest.fixture
def toy() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def index(toy: ToyEncoder) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, toy) as made:
        made.upsert(PASSAGES)
        toy.encoded.clear()
        yield made


def origins(hits: Sequence[Hit]) -> dict[str, str]:
    return {hit.id: hit.note["vectors_from"] for hit in hits}


def test_stored_scores_are_those_of_the_index(toy: ToyEncoder, index: ColBERTIndex) -> None:
    for query in QUERIES:
        hits = rerank(query, PASSAGES, ColBERTScorer(toy, index))
        expected = {hit.id: hit.score for hit in index.rerank(query, [passage.id for passage in PASSAGES])}
        assert {hit.id: hit.score for hit in hits} == expected
        assert set(origins(hits).values()) == {"stored"}
        reference = reference_scores(toy, query, [hit.text for hit in hits])
        assert [hit.score for hit in hits] == pytest.approx(reference, abs=1e-5)
    assert toy.encoded == []


def test_stored_scores_of_a_real_model(colbert: ColBERTModel) -> None:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert(PASSAGES)
        fresh = {hit.id: hit.score for hit in rerank(QUERIES[0], PASSAGES, colbert)}
        hits = rerank(QUERIES[0], PASSAGES, ColBERTScorer(colbert, index))
        assert {hit.id: hit.score for hit in hits} == {
            hit.id: hit.score for hit in index.rerank(QUERIES[0], list(fresh))
        }
        # Stored in float16.
        assert {hit.id: hit.score for hit in hits} == pytest.approx(fresh, abs=0.01)


def test_what_the_index_does_not_hold_is_encoded(toy: ToyEncoder, index: ColBERTIndex) -> None:
    given = [
        PASSAGES[0],
        Passage("p1", "another text under a known id"),
        Passage("unknown", PASSAGES[2].text),
        Passage("p3", PASSAGES[3].text + " "),
    ]
    hits = rerank(QUERIES[0], given, ColBERTScorer(toy, index))
    assert origins(hits) == {"p0": "stored", "p1": "encoded", "unknown": "encoded", "p3": "encoded"}
    assert sorted(toy.encoded) == sorted(passage.text for passage in given[1:])
    expected = dict(
        zip([item.id for item in given], reference_scores(toy, QUERIES[0], [g.text for g in given]), strict=True)
    )
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-3)


def test_candidates_of_one_id_or_of_none(toy: ToyEncoder, index: ColBERTIndex) -> None:
    held = PASSAGES[0]
    given = [
        Candidate("p0", held.text),
        Candidate("p0", "not what is stored"),
        Candidate(None, held.text),
        Candidate("p0", held.text),
        Candidate("\ud800", held.text),
        Candidate("", held.text),
        Candidate("p\0" + "0", held.text),
        Candidate(7, held.text),  # type: ignore[arg-type]
    ]
    (scored,) = ColBERTScorer(toy, index).score_many([QUERIES[0]], [given])
    assert [one.vectors for one in scored] == ["stored", "encoded", "encoded", "stored"] + ["encoded"] * 4
    assert scored[0] == scored[3]
    assert scored[0].score == pytest.approx(scored[2].score, abs=1e-3)
    assert sorted(toy.encoded) == sorted({held.text, "not what is stored"})


def test_an_index_that_changes_between_calls(toy: ToyEncoder, index: ColBERTIndex) -> None:
    scorer = ColBERTScorer(toy, index)
    assert origins(rerank("rain", PASSAGES[:2], scorer)) == {"p0": "stored", "p1": "stored"}
    index.upsert([Passage("p0", "changed")])
    index.delete(["p1"])
    toy.encoded.clear()
    assert origins(rerank("rain", PASSAGES[:2], scorer)) == {"p0": "encoded", "p1": "encoded"}
    assert origins(rerank("rain", [Passage("p0", "changed")], scorer)) == {"p0": "stored"}
    index.close()
    with pytest.raises(IndexClosedError):
        rerank("rain", PASSAGES[:2], scorer)
    assert rerank("rain", [], scorer) == []


def test_an_index_that_another_model_made_anew(tmp_path: Path, toy: ToyEncoder) -> None:
    ColBERTIndex.create(tmp_path / "index", toy).close()
    with ColBERTIndex.open(tmp_path / "index", toy, read_only=True) as reader:
        scorer = ColBERTScorer(toy, reader)
        assert rerank("rain", PASSAGES[:1], scorer)[0].note["vectors_from"] == "encoded"
        with ColBERTIndex.create(tmp_path / "index", ToyEncoder("other"), overwrite=True) as other:
            other.upsert(PASSAGES[:1])
            with pytest.raises(ModelMismatchError):
                rerank("rain", PASSAGES[:1], scorer)


def test_a_model_that_is_not_the_index_s(index: ColBERTIndex) -> None:
    with pytest.raises(ModelMismatchError, match="other"):
        rerank("rain", PASSAGES, ColBERTScorer(ToyEncoder("other"), index))
    # Another object of the same checkpoint is the same model.
    assert origins(rerank("rain", PASSAGES[:1], ColBERTScorer(ToyEncoder(), index))) == {"p0": "stored"}


@pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")
@pytest.mark.parametrize(("stored", "reads"), [(12, None), (None, 12), (12, 20)])
def test_vectors_that_were_cut_elsewhere_are_not_used(colbert_dir: Path, stored: int | None, reads: int | None) -> None:
    def model(length: int | None) -> ColBERTModel:
        return ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=length)

    short, long = Passage("short", "The cat sat."), Passage("long", " ".join(ENGLISH[:6]))
    with ColBERTIndex.create(None, model(stored)) as index:
        index.upsert([short, long])
        hits = rerank(QUERIES[0], [short, long], ColBERTScorer(model(reads), index))
        assert origins(hits) == {"short": "stored", "long": "encoded"}
        expected = model(reads).score(QUERIES[0], [short.text, long.text])
        assert {hit.id: hit.score for hit in hits} == pytest.approx(
            {"short": expected[0], "long": expected[1]}, abs=0.01
        )


@pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")
def test_vectors_that_another_writer_cut_are_not_used(tmp_path: Path, colbert_dir: Path) -> None:
    whole = ColBERTModel(colbert_dir, dtype="float32", device="cpu")
    brief = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=12)
    ColBERTIndex.create(tmp_path / "index", whole).close()
    long = Passage("long", " ".join(ENGLISH[:6]))
    with ColBERTIndex.open(tmp_path / "index", brief) as index:
        index.upsert([long])
        (hit,) = rerank(QUERIES[0], [long], ColBERTScorer(whole, index))
    assert hit.note["vectors_from"] == "encoded"
    assert "truncated" not in hit.note


@pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")
def test_the_same_length_said_otherwise_is_the_same(colbert_dir: Path) -> None:
    own = ColBERTModel(colbert_dir, dtype="float32", device="cpu")
    said = ColBERTModel(colbert_dir, dtype="float32", device="cpu", document_length=180)
    long = Passage("long", " ".join(ENGLISH))
    with ColBERTIndex.create(None, own) as index:
        index.upsert([long])
        (hit,) = rerank(QUERIES[0], [long], ColBERTScorer(said, index))
    assert (hit.note["vectors_from"], hit.note["truncated"]) == ("stored", True)


def test_a_window_is_encoded_where_the_stored_text_is_whole(colbert: ColBERTModel) -> None:
    short, long = Passage("short", ENGLISH[0]), Passage("long", " ".join(ENGLISH[:6]))
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([short, long])
        hits = {hit.id: hit for hit in rerank("read a zip", [short, long], ColBERTScorer(colbert, index, window=24))}
    assert hits["short"].note["vectors_from"] == "stored"
    assert (hits["short"].note["window_start"], hits["short"].note["window_end"]) == (0, len(short.text))
    assert hits["long"].note["vectors_from"] == "encoded"
    assert hits["long"].note["window_end"] - hits["long"].note["window_start"] < len(long.text)


def test_what_was_encoded_is_kept(toy: ToyEncoder, index: ColBERTIndex) -> None:
    scorer = ColBERTScorer(toy, index)
    new = [Passage("n1", "a new text"), Passage("n2", "a newer text")]
    first = rerank("new", [*PASSAGES[:1], *new, *new], scorer)
    assert sorted(toy.encoded) == ["a new text", "a newer text"]
    again = rerank("new", [*PASSAGES[:1], *new, Passage("n3", "the newest")], scorer)
    assert origins(again) == {"p0": "stored", "n1": "cached", "n2": "cached", "n3": "encoded"}
    assert sorted(toy.encoded) == ["a new text", "a newer text", "the newest"]
    assert {hit.id: hit.score for hit in first}.items() <= {hit.id: hit.score for hit in again}.items()


def test_no_cache(toy: ToyEncoder) -> None:
    scorer = ColBERTScorer(toy, cache_bytes=0)
    for _ in range(2):
        assert set(origins(rerank("rain", PASSAGES[:2], scorer)).values()) == {"encoded"}
    assert len(toy.encoded) == 4


def test_windows_are_kept_too(colbert: ColBERTModel) -> None:
    long = [Passage("long", " ".join(ENGLISH[:8])), Passage("longer", " ".join(ENGLISH[4:20]))]
    scorer = ColBERTScorer(colbert, window=16)
    first = rerank("the storm", long, scorer)
    again = rerank("the storm", long, scorer)
    assert set(origins(first).values()) == {"encoded"}
    assert set(origins(again).values()) == {"cached"}
    assert [(hit.id, hit.score) for hit in first] == [(hit.id, hit.score) for hit in again]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "get"]), st.integers(0, 4), st.sampled_from([0, 1, 7, 40])), max_size=40
)


def vectors_of(tokens: int) -> Floats:
    return np.full((tokens, 8), tokens, dtype=np.float32)


@given(steps=STEPS, max_bytes=st.integers(0, 6000))
def test_the_cache_holds_what_was_used_last_within_its_bytes(steps: list[tuple[str, int, int]], max_bytes: int) -> None:
    cache = VectorCache(max_bytes)
    # A cache without a bound tells in which order the bounded one must forget.
    used: OrderedDict[str, Floats] = OrderedDict()
    for action, number, tokens in steps:
        text = f"text {number} of {tokens} tokens"
        if action == "put":
            cache.put(text, vectors_of(tokens))
            if cache.get(text) is not None:
                used[text] = vectors_of(tokens)
                used.move_to_end(text)
        elif cache.get(text) is not None:
            used.move_to_end(text)
    held = [text for text in used if cache.get(text) is not None]
    assert sum(used[text].nbytes for text in held) <= max_bytes
    assert held == list(used)[len(used) - len(held) :] or not held
    for text in held:
        np.testing.assert_array_equal(cache.get(text), used[text])


def test_a_cache_of_its_batches_keeps_none_of_them() -> None:
    cache = VectorCache(1 << 20)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for batch in range(20):
        rows = np.ones((100_000, 8), dtype=np.float32)
        cache.put(f"text {batch}", rows[:10])
        rows[:] = 2
        assert cache.get(f"text {batch}").max() == 1  # type: ignore[union-attr]
    del rows
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 100_000


def test_the_bytes_are_bounded_under_many_threads() -> None:
    bound = 200_000
    scorer = ColBERTScorer(ToyEncoder(dim=256), cache_bytes=bound)
    rerank("word", ["a word"], scorer)
    reference = ColBERTScorer(ToyEncoder(dim=256), cache_bytes=0)
    texts = [" ".join(f"word{number + shift}" for shift in range(8)) for number in range(400)]
    expected = reference.score("word7 word300", texts)
    start = threading.Barrier(32)

    def work(thread: int) -> bool:
        start.wait()
        chosen = [(thread * 31 + step * 7) % 400 for step in range(40)]
        scores = [scorer.score("word7 word300", [texts[place]])[0] for place in chosen]
        return scores == [expected[place] for place in chosen]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(32)))
    (scored,) = scorer.score_many(["word7"], [[Candidate(None, text) for text in texts]])
    held = sum(one.vectors == "cached" for one in scored)
    assert 0 < held <= bound // (8 * 256 * 4)


def test_memory_stays_within_the_bound() -> None:
    bound = 300_000
    toy = ToyEncoder(dim=64)
    texts = [
        " ".join(f"w{(number // 50 + shift) % 40} v{number % 50}" for shift in range(10)) for number in range(2000)
    ]
    toy.encode_documents(texts)  # it remembers words
    scorer = ColBERTScorer(toy, cache_bytes=bound)
    scorer.score("w1 w2", texts[:1])
    tracemalloc.start()
    for text in texts:
        scorer.score("w1 w2", [text])
    toy.encoded.clear()
    toy.asked.clear()
    # Python's cache of attribute look-ups holds on to as many as 4,096 of the names that this library makes up.
    looked_up = tracemalloc.Filter(False, "*threadpoolctl.py")
    taken = tracemalloc.take_snapshot().filter_traces([looked_up])
    tracemalloc.stop()
    used = sum(trace.size for trace in taken.traces)
    assert bound / 2 < used < bound * 1.1


@pytest.mark.parametrize("windows", [{}, {"window": 16, "stride": 4}])
@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_several_queries_at_once_are_as_one_by_one(colbert: ColBERTModel, windows: dict[str, int], scale: str) -> None:
    passages = [Passage("long", " ".join(ENGLISH[:7])), *PASSAGES]
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert(passages[:6])
        asked = [
            [Candidate(item.id, item.text) for item in passages[number : number + 12]] for number in range(len(QUERIES))
        ]
        asked[3] = []
        together = ColBERTScorer(colbert, index, scale=scale, cache_bytes=0, **windows).score_many(QUERIES, asked)
        alone = ColBERTScorer(colbert, index, scale=scale, cache_bytes=0, **windows)
        for query, given, scored in zip(QUERIES, asked, together, strict=True):
            (expected,) = alone.score_many([query], [given])
            assert [one.score for one in scored] == pytest.approx([one.score for one in expected], abs=1e-4)
            assert [one.vectors for one in scored] == [one.vectors for one in expected]


def test_many_queries_are_ranked_in_groups_like_one_by_one(toy: ToyEncoder) -> None:
    reranker = Reranker(ColBERTScorer(toy), top_n=5)
    queries = [f"{text} {number}" for number, text in enumerate(TEXTS * 5)]
    asked = [[Candidate(None, text) for text in TEXTS] for _ in queries]
    assert len(queries) * len(TEXTS) > 3000
    ranked = reranker.rank_many(queries, asked)
    assert [[one.place for one in row] for row in ranked] == [
        [one.place for one in reranker.rank(query, given)] for query, given in zip(queries, asked, strict=True)
    ]
    with pytest.raises(InvalidInputError, match="2 queries with 1 lists"):
        reranker.rank_many(["a", "b"], [[]])


def test_a_scorer_and_its_reranker_are_copied_without_vectors(tmp_path: Path, toy: ToyEncoder) -> None:
    with ColBERTIndex.create(tmp_path / "index", toy) as index:
        index.upsert(PASSAGES)
        scorer = ColBERTScorer(toy, index, scale="mean", cache_bytes=1000_000)
        expected = rerank("rain", [*PASSAGES, "a new text"], scorer)
        assert len(pickle.dumps(scorer)) < 2000
        made = Reranker(scorer, top_n=np.int64(3))  # type: ignore[arg-type]
        for again in (copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer)), copy.copy(scorer)):
            assert rerank("rain", [*PASSAGES, "a new text"], again) == expected
        ranked = made.rank("rain", [Candidate(item.id, item.text) for item in PASSAGES])
        assert pickle.loads(pickle.dumps(made)).rank(
            "rain", [Candidate(item.id, item.text) for item in PASSAGES]
        ) == ranked  # fmt: skip
        assert len(ranked) == 3


def test_windows_come_through_a_pickle(colbert: ColBERTModel) -> None:
    scorer = ColBERTScorer(colbert, window=np.int64(20), stride=np.int16(5), cache_bytes=np.int32(10))  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(scorer))
    long = [" ".join(ENGLISH[:5])]
    assert rerank("rain", long, again) == rerank("rain", long, scorer)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": "max"},
        {"scale": ["sum"]},
        {"cache_bytes": -1},
        {"cache_bytes": 1.5},
        {"cache_bytes": True},
        {"window": 16},
        {"index": "a path"},
        {"index": 3},
    ],
)
def test_arguments_of_a_wrong_kind(toy: ToyEncoder, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        ColBERTScorer(toy, **arguments)
