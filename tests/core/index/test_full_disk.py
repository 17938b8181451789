"""A full disk refuses the write, and everything that was committed stays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from damaged_index import PASSAGES, answers, check_unharmed
from file_systems import require_mounts, run_mounted
from full_disk import files_limited_to
from grown import ENOUGH, many
from toy import ToyEncoder

from rerank_integrations import (
    ColBERTIndex,
    IndexReadError,
    IndexWriteError,
    Passage,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def index(path: Path) -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
        before = answers(index)
        yield index
        check_unharmed(index, before)


def test_a_segment_that_finds_no_room(index: ColBERTIndex) -> None:
    folders = set((index.path / "segments").iterdir())
    with files_limited_to(100_000), pytest.raises(IndexWriteError, match="last commit stands"):
        index.upsert(Passage(f"new{number}", f"word{number} " * 200) for number in range(50))
    assert set((index.path / "segments").iterdir()) == folders
    index.upsert([Passage("new", "there is room again")])
    assert "new" in index
    index.delete(["new"])


def test_a_catalog_that_finds_no_room(index: ColBERTIndex) -> None:
    folders = set((index.path / "segments").iterdir())
    with files_limited_to(100_000), pytest.raises(IndexWriteError, match="last commit stands"):
        index.upsert(Passage(f"new{number}", "..." * 10_000) for number in range(50))
    assert set((index.path / "segments").iterdir()) == folders
    with files_limited_to(1000), pytest.raises(IndexWriteError, match="last commit stands"):
        index.delete(["p1"])
    index.upsert([Passage("new", "there is room again")])
    assert "new" in index
    index.delete(["new"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there SQLite's reason is not told")
@pytest.mark.parametrize("room", [0, 100])
def test_a_reader_that_finds_no_room_is_not_told_of_damage(path: Path, room: int) -> None:
    """SQLite needs a file of shared memory to read a database that nobody has open."""
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(PASSAGES)
    with files_limited_to(room), pytest.raises(IndexReadError, match="disk may be full"):
        ColBERTIndex.open(path, ToyEncoder(), read_only=True)
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
        assert index.verify().passages == len(PASSAGES)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "without"), [(100_000, "codecs"), (150_000, "segments")])
def test_a_compression_that_finds_no_room(path: Path, room: int, without: str) -> None:
    """No room for the centroids, or for the codes. The passages were stored first; nothing of the attempt stays."""
    passages, encoder = many(ENOUGH), ToyEncoder(dim=64)
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert(passages[:-2])
    # Opened anew, the catalog's log is short.
    with ColBERTIndex.open(path, encoder) as index:
        with files_limited_to(room), pytest.raises(IndexWriteError, match=f"{without}/.*last commit stands"):
            index.upsert(passages[-2:])
        assert (index.stats().kind, index.verify().passages) == ("exact", ENOUGH)
        assert len(list((path / "segments").iterdir())) == index.stats().segments
        assert list((path / "codecs").iterdir()) == []
        ids = [passage.id for passage in passages]
        assert index.search("red fox", 10**6) == index.rerank("red fox", ids)
        index.upsert(passages[-1:])
        assert (index.stats().kind, index.verify().passages) == ("plaid", ENOUGH)
        assert index.search("red fox", 10**6) == index.rerank("red fox", ids)


FILL = """
import sys
from pathlib import Path
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, IndexWriteError, Passage

path = Path(sys.argv[1]) / "index"
ballast = Path(sys.argv[1]) / "ballast"
ballast.write_bytes(bytes(1_500_000))
step = sys.argv[2]
text = {"segments": "word " * 500, "catalog": "..." * 4000}[step]
stored = []
failed = 0
with ColBERTIndex.create(path, ToyEncoder()) as index:
    number = 0
    while failed < 3:
        passages = [Passage(f"p{number}-{place}", f"{place} {text}") for place in range(7)]
        try:
            stored += index.upsert(passages)
        except IndexWriteError as error:
            failed += 1
            assert "last commit stands" in str(error), error
        number += 1
    assert number > 5
    assert len(index) == len(stored), (len(index), len(stored))
    assert index.verify().passages == len(stored)
    assert len(index.search("word 3", 10**6)) == len(stored)
with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
    assert index.verify().passages == len(stored)
    assert len(index.search("word 3", 10**6)) == len(stored)
filler = Path(sys.argv[1]) / "filler"
with filler.open("wb", buffering=0) as stream:
    try:
        while stream.write(bytes(1000)):
            pass
    except OSError:
        pass
with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as index:
    assert index.verify().passages == len(stored)
import os
free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
print("free", free)
try:
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert(Passage(f"more{place}", f"{place} {text}") for place in range(100))
    raise SystemExit("written on a full disk")
except IndexWriteError as error:
    print(error)
ballast.unlink()
with ColBERTIndex.open(path, ToyEncoder()) as index:
    assert index.verify().passages == len(stored)
    index.delete(stored[:len(stored) // 2])
    index.compact()
    index.upsert(passages)
    kept = len(stored) - len(stored) // 2 + 7
    assert index.verify().passages == len(index) == kept
    assert len(index.search("word 3", 10**6)) == kept
    assert len(list((path / "segments").iterdir())) == index.stats().segments
print("sound")
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["segments", "catalog"])
def test_a_full_file_system(tmp_path: Path, step: str) -> None:
    """A real file system of three megabytes: everything committed is there, before and after space is freed."""
    require_mounts()
    ran = run_mounted('mount -t tmpfs -o size=3m tmpfs "$1"', FILL, tmp_path, step)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "sound"
