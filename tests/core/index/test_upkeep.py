"""Looking up, counting, listing and deleting by a filter, against a dictionary."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, IndexClosedError, IndexReadOnlyError, InvalidInputError, Passage
from rerank_integrations.core.index import reader

# Where there is one, a file system that need not wait for a disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

# A filter, and the same in Python.
FILTERS: list[tuple[dict[str, Any], Callable[[Mapping[str, Any]], bool]]] = [
    ({}, lambda metadata: True),
    ({"source": "a.pdf"}, lambda metadata: metadata["source"] == "a.pdf"),
    ({"page": {"$gte": 2}, "source": {"$ne": "b.pdf"}}, lambda m: m["page"] >= 2 and m["source"] != "b.pdf"),
    ({"$or": [{"page": 0}, {"source": "c.pdf"}]}, lambda m: m["page"] == 0 or m["source"] == "c.pdf"),
    ({"absent": {"$exists": True}}, lambda metadata: False),
]
IDS = st.sampled_from([f"p{number}" for number in range(8)])
METADATA = st.fixed_dictionaries({"source": st.sampled_from(["a.pdf", "b.pdf", "c.pdf"]), "page": st.integers(0, 3)})
PASSAGES = st.lists(st.builds(Passage, IDS, st.sampled_from(["red fox", "blue whale", ""]), METADATA), max_size=5)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), PASSAGES),
        st.tuples(st.just("where"), st.integers(0, len(FILTERS) - 1)),
        st.tuples(st.just("ids"), st.lists(IDS, max_size=3)),
    ),
    max_size=8,
)


@pytest.fixture
def encoder() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def index(encoder: ToyEncoder) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, encoder) as created:
        yield created


def of_two_sources() -> list[Passage]:
    return [
        Passage(f"{source}{page}", f"page {page} of {source}", {"source": f"{source}.pdf", "page": page})
        for source in "ab"
        for page in range(9)
    ]


@given(changes=CHANGES)
@settings(max_examples=25)
def test_any_sequence_of_changes_leaves_what_a_dictionary_holds(changes: list[tuple[str, Any]]) -> None:
    expected: dict[str, Passage] = {}
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        ColBERTIndex.create(Path(folder) / "i", ToyEncoder()) as index,
    ):
        for kind, value in changes:
            if kind == "upsert":
                index.upsert(value)
                expected.update((passage.id, passage) for passage in value)
                continue
            where, matches = FILTERS[value] if kind == "where" else ({}, lambda metadata: True)
            gone = [key for key in expected if (matches(expected[key].metadata) if kind == "where" else key in value)]
            assert (index.delete(where=where) if kind == "where" else index.delete(value)) == len(gone)
            for key in gone:
                del expected[key]
        for where, matches in FILTERS:
            matching = {key: passage for key, passage in expected.items() if matches(passage.metadata)}
            assert {passage.id: passage for passage in index.get(where=where)} == matching
            assert index.count(where) == len(matching)
            assert sorted(index.ids(where)) == sorted(matching)
        assert index.count() == len(index) == len(list(index.ids())) == len(expected)
        assert sorted(hit.id for hit in index.search("red fox", k=9)) == sorted(expected)
        assert index.verify().passages == len(expected)


def test_the_passages_of_one_source_go_and_all_others_stay(index: ColBERTIndex) -> None:
    index.upsert(of_two_sources())
    assert index.delete(where={"source": "a.pdf"}) == 9
    assert index.delete(where={"source": "a.pdf"}) == 0
    assert [*index.ids()] == [f"b{page}" for page in range(9)]
    assert index.search("page", k=20, where={"source": "a.pdf"}) == []


def test_an_empty_filter_is_every_passage(index: ColBERTIndex) -> None:
    index.upsert(of_two_sources())
    assert len(index.get(where={})) == index.count({}) == len([*index.ids({})]) == 18
    assert index.delete(where={}) == 18
    assert len(index) == 0


@pytest.mark.parametrize("method", ["delete", "get"])
def test_a_call_names_either_ids_or_a_filter(index: ColBERTIndex, method: str) -> None:
    index.upsert(of_two_sources())
    call = getattr(index, method)
    with pytest.raises(InvalidInputError, match=f"{method} has neither ids nor where"):
        call()
    with pytest.raises(InvalidInputError, match=f"{method} has both ids and where"):
        call(["a1"], where={"page": 1})
    assert len(index) == 18


@pytest.mark.parametrize("where", [[], "a", {"page": {"$near": 1}}, {"page": {}}, {"page": {"$gt": object()}}])
def test_a_bad_filter_is_refused_by_all(index: ColBERTIndex, where: Any) -> None:
    index.upsert(of_two_sources())
    calls: list[Callable[[], object]] = [
        lambda: index.delete(where=where),
        lambda: index.get(where=where),
        lambda: index.count(where),
        lambda: index.ids(where),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="filter"):
            call()
    assert len(index) == 18


@pytest.mark.slow
def test_a_filter_that_is_too_large_changes_nothing(index: ColBERTIndex) -> None:
    index.upsert(of_two_sources())
    with pytest.raises(InvalidInputError, match="too large"):
        index.delete(where={"$or": [{"page": number} for number in range(90_000)]})
    assert len(index) == 18


def test_pages_of_a_listing_are_together_the_whole(index: ColBERTIndex) -> None:
    index.upsert(of_two_sources())
    # A new text leaves a passage where it was in the order.
    index.upsert([Passage("a3", "another text", {"source": "a.pdf", "page": 3})])
    whole = index.get(where={"page": {"$gte": 1}})
    assert [passage.id for passage in whole] == [f"{source}{page}" for source in "ab" for page in range(1, 9)]
    pages = [index.get(where={"page": {"$gte": 1}}, limit=5, offset=start) for start in range(0, 20, 5)]
    assert [passage for page in pages for passage in page] == whole
    assert index.get(where={}, limit=0) == index.get(where={}, offset=2**70) == []
    assert index.get(where={}, limit=2**70) == index.get(where={})


def test_a_page_of_a_listing_is_a_whole_number(index: ColBERTIndex) -> None:
    for arguments in ({"limit": -1}, {"offset": -1}, {"limit": True}, {"offset": 0.5}):
        with pytest.raises(InvalidInputError, match=r"limit|offset"):
            index.get(where={}, **arguments)  # type: ignore[arg-type]
    for arguments in ({"limit": 1}, {"offset": 1}):
        with pytest.raises(InvalidInputError, match="with ids"):
            index.get(["a"], **arguments)  # type: ignore[arg-type]


def test_deleting_in_the_loop_over_ids_deletes_every_passage(
    index: ColBERTIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_IDS_PER_BATCH", 4)
    index.upsert(of_two_sources())
    seen = []
    for passage_id in index.ids({"source": "b.pdf"}):
        seen.append(passage_id)
        index.delete([passage_id])
        index.compact()
    assert seen == [f"b{page}" for page in range(9)]
    assert index.count() == index.count({"source": "a.pdf"}) == 9


def test_a_closed_index_says_so(index: ColBERTIndex) -> None:
    index.upsert(of_two_sources())
    listing = index.ids()
    assert next(listing) == "a0"
    index.close()
    calls: list[Callable[[], object]] = [
        lambda: index.delete(where={}),
        lambda: index.get(where={}),
        index.count,
        index.ids,
        lambda: next(listing),
    ]
    for call in calls:
        with pytest.raises(IndexClosedError, match="closed"):
            call()


def test_a_read_only_index_reads(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    index.upsert(of_two_sources())
    with ColBERTIndex.open(index.path, encoder, read_only=True) as beside:
        with pytest.raises(IndexReadOnlyError, match="read_only"):
            beside.delete(where={})
        assert beside.count({"page": 1}) == 2
        index.delete(where={"page": 1})
        assert beside.count({"page": 1}) == 0
        assert [passage.id for passage in beside.get(where={"page": 2})] == [*beside.ids({"page": 2})] == ["a2", "b2"]
