"""An index on disk: its segments and size; how it is created, opened, moved and closed."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from toy import ToyEncoder, check_hits, child_env
from toy_corpus import QUERIES, as_passages, corpus

from rerank_integrations import (
    ColBERTIndex,
    IndexClosedError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexReadOnlyError,
    IndexStats,
    InvalidInputError,
    ModelMismatchError,
    Passage,
    VerifyReport,
)
from rerank_integrations.core.index.colbert_index import as_index


@pytest.fixture
def encoder() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def index(tmp_path: Path, encoder: ToyEncoder) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(tmp_path / "index", encoder) as index:
        yield index


def test_many_small_upserts_keep_few_segments(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    texts = {}
    for number in range(60):
        texts[f"p{number % 45:02}"] = f"text number {number}"
        index.upsert([Passage(f"p{number % 45:02}", f"text number {number}")])
        assert index.stats().segments <= 16
    folders = list((index.path / "segments").iterdir())
    assert len(folders) == index.stats().segments
    check_hits(encoder, "number 3", texts, 100, index.search("number 3", 100))


def test_compact_gives_space_back_and_changes_no_answer(index: ColBERTIndex) -> None:
    passages = [Passage(f"p{number:04}", f"text {number} " * 30, {"n": number}) for number in range(1500)]
    index.upsert(passages)
    index.delete([passage.id for passage in passages if passage.metadata["n"] % 5])
    before = index.stats()
    answers = [index.search(f"text {number}", 20, where={"n": {"$gt": 100}}) for number in (0, 5, 700)]
    index.compact()
    after = index.stats()
    assert [index.search(f"text {number}", 20, where={"n": {"$gt": 100}}) for number in (0, 5, 700)] == answers
    assert after.segments == 1
    assert after.passages == before.passages == 300
    assert after.tokens == before.tokens
    assert sum(file.stat().st_size for file in (index.path / "segments").rglob("*.npy")) < before.bytes / 3
    segments = set((index.path / "segments").iterdir())
    index.compact()
    assert set((index.path / "segments").iterdir()) == segments
    index.close()
    assert (index.path / "catalog.sqlite").stat().st_size < 400_000
    with ColBERTIndex.open(index.path, index.model) as again:
        assert again.search("text 5", 20, where={"n": {"$gt": 100}}) == answers[1]
        again.verify()


def test_stats_count(index: ColBERTIndex, encoder: ToyEncoder) -> None:
    empty = index.stats()
    assert (empty.passages, empty.tokens, empty.segments, empty.dim) == (0, 0, 0, None)
    assert (empty.bytes_per_token, empty.bytes_per_passage) == (0.0, 0.0)
    index.upsert([Passage("a", "one two three"), Passage("b", "four"), Passage("c", "")])
    index.upsert([Passage("a", "five six")])
    stats = index.stats()
    assert isinstance(stats, IndexStats)
    assert (stats.passages, stats.tokens, stats.segments, stats.dim) == (3, 3, 2, encoder.dim)
    assert (stats.model, stats.kind) == ("toy", "exact")
    assert stats.bytes == sum(file.stat().st_size for file in index.path.rglob("*") if file.is_file())
    assert stats.bytes_per_passage == stats.bytes / 3
    assert stats.bytes_per_token == stats.bytes / 3
    assert json.loads(json.dumps(stats.to_dict())) == stats.to_dict()
    assert index.verify() == VerifyReport(passages=3, tokens=3, segments=2)


# --- opening and closing ---


def test_everything_is_there_after_reopening(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "a folder with ü, ?, # and %20" / "deeper"
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert(as_passages(corpus()))
        answers = index.search_many(QUERIES, 12)
    with ColBERTIndex.open(str(path), encoder) as index:
        assert index.path == path
        assert index.model is encoder
        assert index.search_many(QUERIES, 12) == answers
        assert index.verify().passages == len(index) == len(corpus())
        index.upsert(["one more"])
    with ColBERTIndex.open(path, encoder, read_only=True) as index:
        assert len(index) == len(corpus()) + 1


def test_an_index_can_be_moved(tmp_path: Path, encoder: ToyEncoder) -> None:
    with ColBERTIndex.create(tmp_path / "here", encoder) as index:
        index.upsert(["a text"])
        answer = index.search("text")
    (tmp_path / "here").rename(tmp_path / "there")
    with ColBERTIndex.open(tmp_path / "there", encoder) as index:
        assert index.search("text") == answer
        index.verify()


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, encoder: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ColBERTIndex.create("index", encoder) as index:
        index.upsert(["a text"])
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        index.upsert(["another text"])
        assert len(index.search("text")) == 2
        assert index.path == tmp_path / "index"
        index.verify()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_create_leaves_an_index_that_is_there(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "index"
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert(["precious"])
        with pytest.raises(IndexExistsError, match="overwrite"):
            ColBERTIndex.create(path, encoder)
    with pytest.raises(IndexExistsError, match=str(path)):
        ColBERTIndex.create(path, encoder)
    with ColBERTIndex.open(path, encoder) as index:
        assert len(index) == 1


def test_overwrite_empties_an_index(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "index"
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert([Passage("a", "old text")])
    other = ToyEncoder("other", dim=24)
    with ColBERTIndex.create(path, other, overwrite=True, nbits=4) as index:
        assert len(index) == 0
        assert list((path / "segments").iterdir()) == []
        index.upsert([Passage("a", "new text")])
        assert [hit.text for hit in index.search("text")] == ["new text"]
        index.verify()
    with ColBERTIndex.open(path, other) as index:
        assert index.stats().dim == 24


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, encoder: ToyEncoder, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(IndexFormatError, match=r"thesis\.txt"):
        ColBERTIndex.create(tmp_path, encoder, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(IndexFormatError, match="is a file"):
        ColBERTIndex.create(tmp_path / "thesis.txt", encoder, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_becomes_an_index(tmp_path: Path, encoder: ToyEncoder) -> None:
    with ColBERTIndex.create(tmp_path, encoder) as index:
        index.upsert(["a text"])
    with ColBERTIndex.open(tmp_path, encoder) as index:
        assert len(index) == 1


def test_a_closed_index_says_so(tmp_path: Path, encoder: ToyEncoder) -> None:
    index = ColBERTIndex.create(tmp_path / "index", encoder)
    index.upsert([Passage("a", "text")])
    index.close()
    index.close()
    calls = [
        lambda: index.search("text"),
        lambda: index.search(""),
        lambda: index.search_many(["text"]),
        lambda: index.rerank("text", ["a"]),
        lambda: index.rerank("text", []),
        lambda: index.get(["a"]),
        lambda: index.upsert(["more"]),
        lambda: index.delete(["a"]),
        lambda: index.delete([]),
        lambda: "a" in index,
        lambda: len(index),
        index.compact,
        index.stats,
        index.verify,
    ]
    for call in calls:
        with pytest.raises(IndexClosedError, match="closed"):
            call()
    with ColBERTIndex.open(tmp_path / "index", encoder) as again:
        assert len(again) == 1


def test_an_index_closed_by_the_callers_own_iterator_stores_nothing_more(tmp_path: Path, encoder: ToyEncoder) -> None:
    index = ColBERTIndex.create(tmp_path / "index", encoder)

    def passages() -> Iterator[str]:
        yield "one"
        index.close()
        yield "two"

    with pytest.raises(IndexClosedError):
        index.upsert(passages())
    with ColBERTIndex.open(tmp_path / "index", encoder) as again:
        assert len(again) == 0
        again.verify()


def test_read_only_writes_nothing(tmp_path: Path, encoder: ToyEncoder) -> None:
    with ColBERTIndex.create(tmp_path / "index", encoder) as index:
        index.upsert([Passage("a", "text")])
    with ColBERTIndex.open(tmp_path / "index", encoder, read_only=True) as reader:
        for write in (
            lambda: reader.upsert(["b"]),
            lambda: reader.delete(["a"]),
            lambda: reader.delete([]),
            reader.compact,
        ):
            with pytest.raises(IndexReadOnlyError, match="read_only"):
                write()
        assert [hit.id for hit in reader.search("text")] == ["a"]
        assert reader.verify().passages == reader.stats().passages == 1


def test_a_temporary_index_goes_at_close(encoder: ToyEncoder) -> None:
    with ColBERTIndex.create(None, encoder) as index:
        index.upsert(["a text"])
        path = index.path
        assert len(index.search("text")) == 1
        assert path.is_dir()
    assert not path.exists()


def test_a_temporary_index_goes_with_its_last_reference(encoder: ToyEncoder) -> None:
    index = ColBERTIndex.create(None, encoder)
    index.upsert(["a text"])
    path = index.path
    del index
    gc.collect()
    assert not path.exists()


def test_a_temporary_index_goes_with_its_process() -> None:
    code = (
        "from toy import ToyEncoder; from rerank_integrations import ColBERTIndex\n"
        "index = ColBERTIndex.create(None, ToyEncoder()); index.upsert(['text']); print(index.path)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, env=child_env()
    )
    assert ran.stderr == ""
    assert not Path(ran.stdout.strip()).exists()


def test_a_forgotten_index_gives_its_lock_back(tmp_path: Path, encoder: ToyEncoder) -> None:
    index = ColBERTIndex.create(tmp_path / "index", encoder)
    index.upsert(["a text"])
    del index
    gc.collect()
    with ColBERTIndex.open(tmp_path / "index", encoder) as again:
        again.upsert(["another"])
        assert len(again) == 2


def test_a_pickled_index_reads_beside_its_original(index: ColBERTIndex) -> None:
    index.upsert([Passage("a", "text")])
    plain = ColBERTIndex.open(index.path, ToyEncoder(), read_only=True)
    with pickle.loads(pickle.dumps(plain)) as copy:
        index.upsert([Passage("b", "text")])
        assert [hit.id for hit in copy.search("text")] == ["a", "b"]
        with pytest.raises(IndexReadOnlyError):
            copy.delete(["a"])


def test_as_index_opens_a_path_for_reading(index: ColBERTIndex) -> None:
    assert as_index(index) is index
    for path in (index.path, str(index.path)):
        with as_index(path) as opened, pytest.raises(IndexReadOnlyError):
            opened.upsert(["text"])


def test_repr_names_path_and_model(index: ColBERTIndex) -> None:
    assert repr(index) == f"ColBERTIndex({str(index.path)!r}, model='toy')"


# --- opened or created ---


def test_open_or_create_of_what_another_process_makes_at_this_moment(
    tmp_path: Path, encoder: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    path.mkdir()
    names_of = os.listdir

    def listed_late(folder: Any) -> list[str]:
        monkeypatch.undo()
        ColBERTIndex.create(path, ToyEncoder()).close()
        return names_of(folder)

    monkeypatch.setattr(os, "listdir", listed_late)
    with ColBERTIndex.open_or_create(path, encoder) as index:
        assert len(index) == 0


def test_open_or_create_makes_an_index_and_opens_it_later(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "deep" / "index"
    with ColBERTIndex.open_or_create(path, encoder, nbits=4) as index:
        index.upsert(["a text"])
        assert index.stats().nbits == 4
    with ColBERTIndex.open_or_create(str(path), ToyEncoder()) as index:
        assert len(index) == 1
        assert index.upsert(["another"])
        assert index.stats().nbits == 4
    with ColBERTIndex.open_or_create(path, encoder, nbits=4) as index:
        assert len(index) == 2
    assert ColBERTIndex.open_or_create(tmp_path / "default", encoder).stats().nbits == 2


@pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be moved")
def test_open_or_create_of_an_index_that_was_moved_while_it_was_open(tmp_path: Path, encoder: ToyEncoder) -> None:
    with ColBERTIndex.create(tmp_path / "before", encoder):
        (tmp_path / "before").rename(tmp_path / "after")
        with pytest.raises(IndexLockedError, match=r"before, opened at .* moved; close\(\)"):
            ColBERTIndex.open_or_create(tmp_path / "after", encoder)
    ColBERTIndex.open_or_create(tmp_path / "after", encoder).close()


@pytest.mark.skipif(os.name != "posix", reason="Windows lets only some users make links")
def test_a_link_in_a_circle_has_no_size(index: ColBERTIndex) -> None:
    before = index.stats().bytes
    (index.path / "loop").symlink_to(index.path / "loop")
    assert index.stats().bytes == before


def test_a_cell_that_is_run_again_gets_the_same_open_index(
    tmp_path: Path, encoder: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    cell = "index = ColBERTIndex.open_or_create(path, model); index.upsert(['a text'])"
    names: dict[str, Any] = {"ColBERTIndex": ColBERTIndex}
    seen = []
    for path in (tmp_path / "index", "index", "./link/.", tmp_path / "link"):
        exec(cell, names | {"path": path, "model": ToyEncoder()}, names)
        seen.append(names["index"])
    assert len(set(map(id, seen))) == 1
    assert len(seen[0]) == 1
    seen[0].close()
    with ColBERTIndex.open_or_create("index", encoder) as index:
        assert index is not seen[0]
        assert len(index) == 1


def test_threads_that_open_or_create_at_once_share_one_index(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def get(_: int) -> ColBERTIndex:
        start.wait()
        return ColBERTIndex.open_or_create(tmp_path / "index", ToyEncoder())

    with ThreadPoolExecutor(8) as pool:
        indexes = list(pool.map(get, range(8)))
    assert len(set(map(id, indexes))) == 1
    indexes[0].close()


def test_open_or_create_refuses_what_would_not_be_the_same(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "index"
    index = ColBERTIndex.open_or_create(path, encoder, nbits=4)
    index.upsert(["a text"])
    other = Optioned()
    for is_open in (True, False):
        with pytest.raises(ModelMismatchError, match="other"):
            ColBERTIndex.open_or_create(path, ToyEncoder("other"))
        for nbits in (2, 3, "4", True):
            with pytest.raises(InvalidInputError, match="nbits"):
                ColBERTIndex.open_or_create(path, encoder, nbits=nbits)  # type: ignore[arg-type]
        if is_open:
            with pytest.raises(IndexLockedError, match=r"test_files.py:\d+.*close\(\).*'batch_size': 3"):
                ColBERTIndex.open_or_create(path, other)
            assert index.upsert(["still open"])
            index.close()
    # Nothing above has kept the lock.
    with ColBERTIndex.open_or_create(path, other) as again:
        assert again.model is other
        assert len(again) == 2
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(IndexFormatError, match=r"todo\.txt"):
        ColBERTIndex.open_or_create(tmp_path / "notes", encoder)
    with pytest.raises(InvalidInputError, match="path is None"):
        ColBERTIndex.open_or_create(None, encoder)  # type: ignore[arg-type]


class Optioned(ToyEncoder):
    def options(self) -> dict[str, Any]:
        return {**super().options(), "batch_size": 3}


def test_a_folder_made_anew_under_an_open_index_is_another_index(tmp_path: Path, encoder: ToyEncoder) -> None:
    """The new folder may have the inode of the old one."""
    path = tmp_path / "index"
    gone = ColBERTIndex.open_or_create(path, encoder)
    gone.upsert(["a text that is gone"])
    shutil.rmtree(path)
    with ColBERTIndex.open_or_create(path, encoder) as index:
        assert index is not gone
        assert len(index) == 0


def test_a_lock_of_this_process_says_who_has_it(tmp_path: Path, encoder: ToyEncoder) -> None:
    path = tmp_path / "index"
    with ColBERTIndex.create(path, encoder) as index:
        for again in (
            lambda: ColBERTIndex.open(path, encoder),
            lambda: ColBERTIndex.open(path),
            lambda: ColBERTIndex.create(path, encoder, overwrite=True),
        ):
            with pytest.raises(IndexLockedError, match=r"very process.*test_files\.py:\d+.*open_or_create") as told:
                again()
            assert "elsewhere" not in str(told.value)
        assert index.upsert(["still open"])
    ColBERTIndex.open(path, encoder).close()
