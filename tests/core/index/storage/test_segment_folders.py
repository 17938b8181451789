"""A writer removes only folders that its own catalog logged, once no reader needs them, where it was opened."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damaged_index import PASSAGES, answers, change_catalog, check_unharmed, make_two_segments
from format_2 import as_format_2
from full_disk import files_limited_to
from toy import ToyEncoder, child_env

from rerank_integrations import (
    ColBERTIndex,
    IndexFormatError,
    IndexLockedError,
    IndexMovedError,
    IndexWriteError,
    Passage,
    RerankError,
)

NAME = "0123456789abcdef" * 2

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be moved or removed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_two_segments(tmp_path / "index")


def segments_of(path: Path) -> set[str]:
    return {folder.name for folder in (path / "segments").iterdir()}


def write_a_lot(path: Path) -> None:
    """Make every kind of write; each removes folders that are no longer needed."""
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert([Passage("new", "one more"), Passage("p1", "text number 1 again")])
        index.delete(["new"])
        index.upsert(PASSAGES)
        index.compact()


# --- what is not the index's own stays ---


@posix_only
@pytest.mark.parametrize("kind", ["segments", "codecs"])
def test_nothing_is_removed_behind_a_linked_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "home" / NAME).mkdir(parents=True)
    (tmp_path / "home" / NAME / "tokens.npy").write_text("years of work")
    ColBERTIndex.create(tmp_path / "index", ToyEncoder()).close()
    change_catalog(tmp_path / "index", "INSERT INTO folders VALUES (?, 0)", NAME)
    shutil.rmtree(tmp_path / "index" / kind, ignore_errors=True)
    (tmp_path / "index" / kind).symlink_to(tmp_path / "home")
    write_a_lot(tmp_path / "index")
    assert (tmp_path / "home" / NAME / "tokens.npy").read_text() == "years of work"


@posix_only
def test_a_linked_folder_of_a_logged_name_stays(path: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tokens.npy").write_text("years of work")
    change_catalog(path, "INSERT INTO folders VALUES (?, 0)", NAME)
    (path / "segments" / NAME).symlink_to(tmp_path / "home")
    write_a_lot(path)
    assert (tmp_path / "home" / "tokens.npy").read_text() == "years of work"
    assert (path / "segments" / NAME).is_symlink()


def test_folders_that_the_catalog_did_not_log_stay(path: Path) -> None:
    for name in (NAME, f"{NAME}.tmp", "thesis"):
        (path / "segments" / name).mkdir()
        (path / "segments" / name / "tokens.npy").write_text("years of work")
    write_a_lot(path)
    assert {NAME, f"{NAME}.tmp", "thesis"} < segments_of(path)
    assert (path / "segments" / NAME / "tokens.npy").read_text() == "years of work"


def test_other_files_in_a_logged_folder_stay(path: Path) -> None:
    change_catalog(path, "INSERT INTO folders VALUES (?, 0)", NAME)
    (path / "segments" / NAME).mkdir()
    (path / "segments" / NAME / "tokens.npy").write_text("ours")
    (path / "segments" / NAME / "chapter1.txt").write_text("years of work")
    write_a_lot(path)
    assert [file.name for file in (path / "segments" / NAME).iterdir()] == ["chapter1.txt"]


@pytest.mark.parametrize("end", ["", ".tmp"])
def test_what_a_killed_write_left_is_removed(path: Path, end: str) -> None:
    change_catalog(path, "INSERT INTO folders VALUES (?, 0)", NAME)
    (path / "segments" / f"{NAME}{end}").mkdir()
    (path / "segments" / f"{NAME}{end}" / "tokens.npy").write_text("half")
    ColBERTIndex.open(path, ToyEncoder(), read_only=True).close()
    assert len(segments_of(path)) == 3
    ColBERTIndex.open(path, ToyEncoder()).close()
    assert len(segments_of(path)) == 2


def test_an_index_of_before_the_log_is_written_on(path: Path) -> None:
    """Folders of the earlier writer cannot be proved to be its own and stay; those replaced from now on go."""
    as_format_2(path)
    (path / "segments" / NAME).mkdir()
    write_a_lot(path)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        assert index.verify().passages == len(PASSAGES)
        assert index.stats().segments == 1
        assert len(segments_of(path)) == 2


def test_a_flipped_bit_in_a_segments_name_removes_nothing(path: Path, tmp_path: Path) -> None:
    """The bit can be restored later; meanwhile `verify` reports the damage."""
    sound = (path / "catalog.sqlite").read_bytes()
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
        before = answers(index)
    places = [at for name in segments_of(path) for at in range(len(sound)) if sound.startswith(name.encode(), at)]
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    reported = 0
    for at in places:
        flipped = bytearray(sound)
        flipped[at + 5] ^= 1
        (copy / "catalog.sqlite").write_bytes(flipped)
        for _ in range(2):
            with ColBERTIndex.open(copy, ToyEncoder()) as index, contextlib.suppress(IndexFormatError):
                reported += 1
                index.verify()
                reported -= 1
        assert segments_of(copy) == segments_of(path)
    assert reported > 0
    (copy / "catalog.sqlite").write_bytes(sound)
    with ColBERTIndex.open(copy, ToyEncoder()) as index:
        check_unharmed(index, before)


def test_a_passage_that_names_a_wrong_segment_removes_none(path: Path) -> None:
    """A removal would make the right segment seem unused."""
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert([Passage("alone", "a text alone")])
    folders = segments_of(path)
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        (name,) = connection.execute("SELECT segment FROM passages WHERE id = 'alone'").fetchone()
    change_catalog(path, "UPDATE passages SET segment = ? WHERE id = 'alone'", "z" + name[1:])
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        for call in (lambda: index.search("text"), index.verify):
            with pytest.raises(IndexFormatError, match="damaged"):
                call()
        index.upsert([Passage("p1", "another text")])
        index.delete(["p2"])
        assert folders <= segments_of(path)
    change_catalog(path, "UPDATE passages SET segment = ? WHERE id = 'alone'", name)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        assert [hit.id for hit in index.search("alone", 1)] == ["alone"]
        assert index.verify().passages == len(PASSAGES)


# --- when a folder goes ---


@contextlib.contextmanager
def held_commit(path: Path) -> Iterator[None]:
    """Hold the last commit by a reader in the middle of its work, in this process or in another."""
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM passages").fetchone()
        yield


def test_replaced_folders_stay_until_no_reader_needs_them(path: Path) -> None:
    before = segments_of(path)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        with held_commit(path):
            for number in range(3):
                index.upsert(Passage(p.id, f"text {number}") for p in PASSAGES)
            assert before < segments_of(path)
            with held_commit(path):
                pass
            index.compact()
            assert before < segments_of(path)
        index.delete(["none"])
        assert len(segments_of(path)) == index.stats().segments == 1
        with held_commit(path):
            index.upsert(PASSAGES)
            assert len(segments_of(path)) == 2
            # One that sees the last commit holds nothing back.
            index.close()
    ColBERTIndex.open(path, ToyEncoder()).close()
    assert len(segments_of(path)) == 1


def test_a_failed_write_leaves_nothing_even_beside_a_reader(path: Path) -> None:
    """No commit named the files that it wrote, so no reader can need them."""
    before = segments_of(path)
    with ColBERTIndex.open(path, ToyEncoder()) as index, held_commit(path):
        with files_limited_to(100_000), pytest.raises(IndexWriteError, match="last commit stands"):
            index.upsert(Passage(f"new{number}", "..." * 10_000) for number in range(50))
        assert segments_of(path) == before
        assert index.verify().passages == len(PASSAGES)


# --- an index that is no longer where it was ---


def moved(live: Path) -> None:
    live.rename(live.with_name("elsewhere"))


def removed(live: Path) -> None:
    shutil.rmtree(live)


def replaced(live: Path) -> None:
    live.rename(live.with_name("elsewhere"))
    live.with_name("new").rename(live)


def replaced_by_a_copy(live: Path) -> None:
    shutil.copytree(live, live.with_name("copy"))
    live.rename(live.with_name("elsewhere"))
    live.with_name("copy").rename(live)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*.npy")}


@posix_only
@pytest.mark.parametrize("change", [moved, removed, replaced, replaced_by_a_copy])
def test_a_writer_whose_folder_is_gone_writes_and_removes_nothing(
    path: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    with ColBERTIndex.create(tmp_path / "new", ToyEncoder()) as new:
        new.upsert([f"new {number}" for number in range(20)])
    index = ColBERTIndex.open(path, ToyEncoder())
    index.upsert([Passage("p1", "text number 1 again")])
    change(path)
    before = contents(tmp_path)
    for write in (lambda: index.upsert(["one more"]), lambda: index.delete(["p1"]), index.compact):
        with pytest.raises(IndexMovedError, match="moved, replaced or removed"):
            write()
    index.close()
    assert contents(tmp_path) == before
    for place in ("index", "elsewhere", "new"):
        if (tmp_path / place).exists():
            with ColBERTIndex.open(tmp_path / place, ToyEncoder()) as again:
                assert again.verify().passages == len(again) == 20
                again.upsert(["one more"])
                assert again.verify().passages == 21


@posix_only
def test_a_temporary_index_leaves_what_stands_in_its_place(tmp_path: Path) -> None:
    index = ColBERTIndex.create(None, ToyEncoder())
    index.path.rename(tmp_path / "elsewhere")
    index.path.mkdir()
    (index.path / "thesis.txt").write_text("years of work")
    index.close()
    assert (index.path / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(index.path)


@posix_only
def test_removing_the_lock_file_lets_no_second_writer_in(path: Path) -> None:
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        for _ in range(2):
            (path / "writer.lock").unlink()
            with pytest.raises(IndexLockedError, match="read_only"):
                ColBERTIndex.open(path, ToyEncoder())
        index.upsert(["one more"])
        assert index.verify().passages == len(PASSAGES) + 1
    with ColBERTIndex.open(path, ToyEncoder()) as again:
        assert len(again) == len(PASSAGES) + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hold_the_lock_after_its_parent(path: Path) -> None:
    code = """
import os, sys
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex
index = ColBERTIndex.open(sys.argv[1], ToyEncoder())
if os.fork() == 0:
    # The child tells its number itself: until then it may still be in its fork.
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_env(),
    )  # fmt: skip
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline())
    assert parent.wait() == 0
    os.kill(child, 0)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert(["one more"])
    os.kill(child, signal.SIGKILL)
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.parametrize("table", ["folders", "segments"])
def test_a_catalog_that_lost_the_names_of_folders_removes_nothing(path: Path, table: str) -> None:
    """A damaged record reads as NULL, whatever the schema allows."""
    catalog = path / "catalog.sqlite"
    sound, before = catalog.read_bytes(), segments_of(path)
    with contextlib.closing(sqlite3.connect(f"{catalog.as_uri()}?immutable=1", uri=True)) as connection:
        names = [name for (name,) in connection.execute(f"SELECT name FROM {table}")]
    damaged = bytearray(sound)
    for name in names:
        for match in re.finditer(name.encode(), sound):
            # The type of a text of 32 bytes in a record's header becomes that of NULL.
            if (kind := sound.rfind(b"\x4d", match.start() - 12, match.start())) >= 0:
                damaged[kind] = 0
    assert damaged != sound
    catalog.write_bytes(damaged)
    with contextlib.suppress(RerankError):
        ColBERTIndex.open(path, ToyEncoder()).close()
    assert segments_of(path) == before
    for file in path.glob("catalog.sqlite-*"):
        file.unlink()
    catalog.write_bytes(sound)
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        assert index.verify().passages == len(PASSAGES)
