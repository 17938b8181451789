"""Any sequence of changes gives the same index as one upsert of the remaining passages, exact or compressed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grown import KEPT, check_nearly, small_copy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from plain_bm25 import plain_bm25
from toy import ToyEncoder, check_hits

from rerank_integrations import ColBERTIndex, Hit, Passage

# Where there is one, a file system that need not wait for a disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

WORDS = ["red", "green", "blue", "fox", "frog", "whale", "the", "a"]
QUERIES = ["red fox", "the whale", "unknown", "green green blue a", "!"]
WHERES: list[dict[str, Any]] = [{"n": {"$gte": 2}}, {"tag": "x"}, {"$or": [{"n": 0}, {"tag": {"$exists": False}}]}]
# The same in Python.
KEEP: list[Callable[[dict[str, Any]], bool]] = [
    lambda metadata: metadata["n"] >= 2,
    lambda metadata: metadata.get("tag") == "x",
    lambda metadata: metadata["n"] == 0 or "tag" not in metadata,
]

IDS = st.sampled_from([f"p{number}" for number in range(12)])
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
METADATA = st.fixed_dictionaries({"n": st.integers(0, 3)}, optional={"tag": st.sampled_from(["x", "y"])})
PASSAGES = st.builds(Passage, IDS, TEXTS, METADATA)


SOME = [f"p{number}" for number in range(0, 12, 2)] + [f"m{number}" for number in range(0, 600, 7)]


class Changes(RuleBasedStateMachine):
    """Changes of an index, mirrored in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ToyEncoder()
        self.folder = Path(tempfile.mkdtemp(prefix="changes-", dir=MEMORY))
        self.begin()

    def begin(self) -> None:
        """Set `kept`, and open `index` and `reader` on an index of exactly these passages."""
        self.kept: dict[str, Passage] = {}
        self.index = ColBERTIndex.create(self.folder / "index", self.encoder)
        self.reader = ColBERTIndex.open(self.folder / "index", self.encoder, read_only=True)

    def teardown(self) -> None:
        self.index.close()
        self.reader.close()
        shutil.rmtree(self.folder)

    @rule(passages=st.lists(PASSAGES, min_size=1, max_size=6))
    def upsert(self, passages: list[Passage]) -> None:
        assert self.index.upsert(passages) == [passage.id for passage in passages]
        self.kept.update((passage.id, passage) for passage in passages)

    @rule(passages=st.lists(PASSAGES, min_size=17, max_size=20))
    def upsert_one_by_one(self, passages: list[Passage]) -> None:
        """Upsert one passage at a time, more than the number of small segments that are joined."""
        for passage in passages:
            self.index.upsert([passage])
        self.kept.update((passage.id, passage) for passage in passages)

    @rule(first=st.integers(0, 300), count=st.integers(250, 270))
    def upsert_several_commits(self, first: int, count: int) -> None:
        passages = [
            Passage(f"m{n}", f"{WORDS[n % 7]} {WORDS[n % 5]}", {"n": n % 4}) for n in range(first, first + count)
        ]
        self.index.upsert(passages)
        self.kept.update((passage.id, passage) for passage in passages)

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), metadata=METADATA)
    def change_metadata(self, data: st.DataObject, metadata: dict[str, Any]) -> None:
        old = data.draw(st.sampled_from(sorted(self.kept.values(), key=lambda passage: passage.id)))
        self.encoder.encoded.clear()
        self.index.upsert([Passage(old.id, old.text, metadata)])
        assert self.encoder.encoded == []
        self.kept[old.id] = Passage(old.id, old.text, metadata)

    @rule(ids=st.lists(IDS, max_size=6))
    def delete(self, ids: list[str]) -> None:
        assert self.index.delete(ids) == len(set(ids) & set(self.kept))
        self.kept = {key: passage for key, passage in self.kept.items() if key not in ids}

    @rule(third=st.integers(0, 2))
    def delete_a_third(self, third: int) -> None:
        ids = [f"m{n}" for n in range(third, 600, 3)]
        assert self.index.delete(ids) == len(set(ids) & set(self.kept))
        self.kept = {key: passage for key, passage in self.kept.items() if key not in set(ids)}

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = ColBERTIndex.open(self.folder / "index", self.encoder)

    @rule()
    def reopen_reader(self) -> None:
        self.reader.close()
        self.reader = ColBERTIndex.open(self.folder / "index", self.encoder, read_only=True)

    @invariant()
    def sound(self) -> None:
        report = self.index.verify()
        stats = self.index.stats()
        assert report.passages == stats.passages == len(self.index) == len(self.reader) == len(self.kept)
        assert report.segments == stats.segments == len(list((self.folder / "index" / "segments").glob("*")))

    @invariant()
    def bm25_of_what_is_kept(self) -> None:
        """Assert that both indexes score texts as the formula in plain Python does."""
        texts = {key: passage.text for key, passage in self.kept.items()}
        for query in QUERIES[:4]:
            expected = plain_bm25(query, texts)
            for index in (self.index, self.reader):
                hits = index.search(query, 1000, search_type="bm25")
                assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
                assert [(-hit.score, hit.id) for hit in hits] == sorted((-hit.score, hit.id) for hit in hits)

    @invariant()
    def holds_what_is_kept(self) -> None:
        """Assert that the open index and a reader opened long before have the expected content."""
        for index in (self.index, self.reader):
            assert index.get([*SOME, "p1"]) == [self.kept[key] for key in [*SOME, "p1"] if key in self.kept]


class ExactChanges(Changes):
    """Changes of an exact index; the reference is an index made at once from the dictionary."""

    @rule()
    def start_over(self) -> None:
        self.index.close()
        self.index = ColBERTIndex.create(self.folder / "index", self.encoder, overwrite=True)
        self.kept = {}

    @invariant()
    def like_a_fresh_one(self) -> None:
        with ColBERTIndex.create(self.folder / "fresh", self.encoder, overwrite=True) as fresh:
            fresh.upsert(self.kept.values())
            for index in (self.index, self.reader):
                for k in (2, 1000):
                    assert index.search_many(QUERIES, k) == fresh.search_many(QUERIES, k)
                for where in WHERES:
                    assert index.search_many(QUERIES, 5, where=where) == fresh.search_many(QUERIES, 5, where=where)
                assert index.search("red fox", 5, ids=SOME) == fresh.search("red fox", 5, ids=SOME)
                assert index.rerank("blue whale", SOME) == fresh.rerank("blue whale", SOME)
                for kind in ("bm25", "hybrid"):
                    assert index.search_many(QUERIES, 7, search_type=kind) == fresh.search_many(
                        QUERIES, 7, search_type=kind
                    )
                    assert index.search("red fox", 5, where=WHERES[0], search_type=kind) == fresh.search(
                        "red fox", 5, where=WHERES[0], search_type=kind
                    )
            texts = {key: passage.text for key, passage in self.kept.items()}
            check_hits(self.encoder, "red fox", texts, 7, fresh.search("red fox", 7))


class CompressedChanges(Changes):
    """Changes of a compressed index; another one has other centroids, so references are the passages' own scores."""

    def begin(self) -> None:
        path = small_copy(self.folder / "index")
        self.kept = dict(KEPT)
        self.index = ColBERTIndex.open(path, self.encoder)
        self.reader = ColBERTIndex.open(path, self.encoder, read_only=True)

    @rule()
    def compact(self) -> None:
        before = self.index.search_many(QUERIES, 1000)
        self.index.compact()
        assert self.index.search_many(QUERIES, 1000) == before

    @rule()
    def another(self) -> None:
        self.index.close()
        self.reader.close()
        shutil.rmtree(self.folder / "index")
        self.begin()

    @invariant()
    def stays_compressed(self) -> None:
        assert self.index.stats().kind == "plaid"

    @invariant()
    def like_the_dictionary(self) -> None:
        for index in (self.index, self.reader):
            everything = index.search_many(QUERIES, 1000)
            for query, hits in zip(QUERIES, everything, strict=True):
                assert [hit.id for hit in hits[:7]] == [hit.id for hit in index.search(query, 7, exact=True)]
                assert index.search(query, 1000, exact=True) == hits
                assert index.search(query, 7) == hits[:7]
            for query, hits in zip(QUERIES[:2], everything, strict=False):
                assert index.rerank(query, self.kept) == hits
                self.restricted(index, query, hits)
            check_nearly("red fox", self.kept, 1000, index)

    def restricted(self, index: ColBERTIndex, query: str, hits: list[Hit]) -> None:
        score = {hit.id: hit.score for hit in hits}
        for where, keeps in zip(WHERES, KEEP, strict=True):
            left = [hit.id for hit in hits if keeps(hit.metadata)]
            found = index.search(query, 5, where=where)
            assert [(hit.id, hit.score) for hit in found] == [(key, score[key]) for key in left[:5]]
        some = [hit.id for hit in hits if hit.id in SOME]
        assert [hit.id for hit in index.search(query, 5, ids=SOME)] == some[:5]
        assert [hit.id for hit in index.rerank(query, SOME)] == some


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_any_sequence_of_changes() -> None:
    run(ExactChanges, max_examples=3, steps=10)


def test_any_sequence_of_changes_of_a_compressed_index() -> None:
    run(CompressedChanges, max_examples=3, steps=8)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [ExactChanges, CompressedChanges])
def test_any_sequence_of_changes_at_length(machine: type[Changes]) -> None:
    # Other sequences each time.
    run(machine, max_examples=3, steps=40, derandomize=False)


def run(machine: type[Changes], *, max_examples: int, steps: int, derandomize: bool = True) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=QUIET,
            derandomize=derandomize,
        ),
    )
