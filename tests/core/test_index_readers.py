"""Many readers beside one writer, in this process and in others; read-only media."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mounts import require_mounts, run_mounted
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex, IndexClosedError, IndexLockedError, Passage

# Each commit replaces all of these at once, so an answer of two versions mixes two commits.
IDS = [f"p{number:02}" for number in range(20)]


def version(number: int) -> list[Passage]:
    return [Passage(key, f"common version{number} {key}", {"version": number}) for key in IDS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_env(),
    )  # fmt: skip


def output_of(child: subprocess.Popen[str]) -> str:
    told, errors = child.communicate()
    assert child.returncode == 0, errors
    return told


def test_a_reader_sees_commits_without_reopening(path: Path) -> None:
    encoder = ToyEncoder()
    with ColBERTIndex.create(path, encoder) as writer, ColBERTIndex.open(path, encoder, read_only=True) as reader:
        assert reader.search("common") == []
        for number in range(3):
            writer.upsert(version(number))
            assert {hit.metadata["version"] for hit in reader.search("common", 50)} == {number}
            assert len(reader) == len(IDS)
        writer.delete(IDS[:5])
        assert [hit.id for hit in reader.search("common", 50)] == IDS[5:]
        answer = reader.search("version2 p07", 3)
        writer.compact()
        assert reader.search("version2 p07", 3) == answer == writer.search("version2 p07", 3)
        assert IDS[0] not in reader
        assert reader.verify() == writer.verify()


def test_a_reader_stays_open_through_an_overwrite(path: Path) -> None:
    encoder = ToyEncoder()
    with ColBERTIndex.create(path, encoder) as writer:
        writer.upsert(version(1))
    with ColBERTIndex.open(path, encoder, read_only=True) as reader:
        assert len(reader.search("common", 50)) == len(IDS)
        with ColBERTIndex.create(path, encoder, overwrite=True) as writer:
            assert reader.search("common", 50) == []
            writer.upsert([Passage("new", "common ground")])
            assert [hit.id for hit in reader.search("common", 50)] == ["new"]


WRITER = """
import sys, itertools
from test_index_readers import *
with ColBERTIndex.open(Path(sys.argv[1]), ToyEncoder()) as index:
    print("open", flush=True)
    for number in itertools.count(1):
        index.upsert(version(number))
        if number % 3 == 0:
            index.compact()
        if number % 5 == 0:
            index.delete(IDS[:7])
        if number >= int(sys.argv[2]):
            break
    print(number, flush=True)
"""

READER = """
import sys
from test_index_readers import *
print(json.dumps(read_until(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def read_until(path: Path, last: int) -> dict[str, int]:
    """Ask until the last version is there; every answer must be of one commit, and none older than the one before."""
    seen: list[int] = []
    answers = 0
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader:
        while not seen or seen[-1] < last:
            hits = reader.search("common version7", 50)
            versions = {hit.metadata["version"] for hit in hits}
            assert len(versions) == 1, versions
            (number,) = versions
            ids = sorted(hit.id for hit in hits)
            assert ids == IDS or (number % 5 == 0 and ids == IDS[7:]), (number, ids)
            assert all(f"version{number} {hit.id}" in hit.text for hit in hits)
            assert not seen or number >= seen[-1]
            kept = reader.rerank("common", IDS)
            assert len({hit.metadata["version"] for hit in kept}) == 1
            reader.verify()
            reader.stats()
            seen.append(number)
            answers += 1
    return {"answers": answers, "commits": len(set(seen))}


def run_beside_a_writer(path: Path, versions: int) -> list[dict[str, int]]:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(version(0))
    env_path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    writer = start(env_path + WRITER, path, versions)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    readers = [start(env_path + READER, path, versions) for _ in range(2)]
    with pytest.raises(IndexLockedError, match="read_only"):
        ColBERTIndex.open(path, ToyEncoder())
    here = read_until(path, versions)
    counts = [here, *(json.loads(output_of(reader)) for reader in readers)]
    assert int(output_of(writer)) == versions
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.verify()
        assert len(list((path / "segments").iterdir())) == index.stats().segments
    return counts


def test_readers_in_three_processes_beside_a_writer_that_compacts(path: Path) -> None:
    counts = run_beside_a_writer(path, 30)
    assert max(count["commits"] for count in counts) > 5


@pytest.mark.slow
def test_readers_in_three_processes_beside_a_writer_for_long(path: Path) -> None:
    counts = run_beside_a_writer(path, 600)
    assert min(count["commits"] for count in counts) > 50


def test_threads_read_and_write_one_index(path: Path) -> None:
    """Searches beside upserts, deletes, compactions and verifications: no error, and every answer of one commit."""
    errors: list[BaseException] = []
    stop = threading.Event()
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(version(0))

        def run(work: object) -> None:
            try:
                while not stop.is_set():
                    work()  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)

        def search() -> None:
            hits = index.search("common version3", 50)
            assert len({hit.metadata["version"] for hit in hits}) == 1
            assert [hit.id for hit in sorted(hits, key=lambda hit: hit.id)] in (IDS, IDS[7:])

        def inspect() -> None:
            assert index.verify().segments > 0
            assert index.stats().passages in (len(IDS), len(IDS) - 7)

        threads = [threading.Thread(target=run, args=(work,)) for work in [search] * 4 + [inspect] * 2]
        for thread in threads:
            thread.start()
        for number in range(1, 16):
            index.upsert(version(number))
            index.delete(IDS[:7])
            if number % 3 == 0:
                index.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [hit.id for hit in index.search("common", 50)] == IDS[7:]


def test_close_waits_for_the_write_under_way(path: Path) -> None:
    """Else the lock would be free, and another writer could sweep the segments that are not yet committed."""
    encoder = ToyEncoder()
    index = ColBERTIndex.create(path, encoder)
    inside, go_on = threading.Event(), threading.Event()

    def passages() -> Iterator[str]:
        yield "one"
        inside.set()
        go_on.wait(10)
        yield "two"

    writing = threading.Thread(target=index.upsert, args=(passages(),))
    writing.start()
    inside.wait(10)
    closing = threading.Thread(target=index.close)
    closing.start()
    with pytest.raises(IndexLockedError):
        ColBERTIndex.open(path, encoder)
    go_on.set()
    writing.join()
    closing.join()
    with ColBERTIndex.open(path, encoder) as again:
        assert len(again) == 2


# --- processes that fork ---


def forked(code: str, path: Path) -> str:
    child = start("import os, gc\nfrom toy import ToyEncoder\nfrom rerank_integrations import *\n" + code, path)
    return output_of(child)


def test_a_forked_child_reads_and_leaves_the_writer_its_lock(path: Path) -> None:
    """A server that forks its workers: they may search, close and forget the index, and the parent still writes."""
    code = """
import sys
index = ColBERTIndex.create(sys.argv[1], ToyEncoder())
index.upsert([Passage("a", "text")])
assert len(index.search("text")) == 1
if os.fork() == 0:
    assert [hit.id for hit in index.search("text")] == ["a"]
    try:
        index.upsert(["more"])
    except IndexLockedError as error:
        print("refused", flush=True)
    index.close()
    del index
    gc.collect()
    os._exit(0)
assert os.wait()[1] == 0
try:
    ColBERTIndex.open(sys.argv[1], ToyEncoder())
except IndexLockedError:
    print("locked")
index.upsert([Passage("b", "text")])
print([hit.id for hit in index.search("text")], index.verify().passages)
"""
    assert forked(code, path).splitlines() == ["refused", "locked", "['a', 'b'] 2"]


# --- read-only media ---

# A first search imports what nobody might not be allowed to read.
BECOME_NOBODY = """
import os
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex
with ColBERTIndex.create(None, ToyEncoder()) as index:
    index.upsert(["warm"])
    index.search("up", where={"a": 1})
    index.search("up")
if os.geteuid() == 0:
    os.setuid(65534)
"""

SEARCH = """
import json, sys
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, IndexWriteError
index = ColBERTIndex.open(sys.argv[1], ToyEncoder(), read_only=True)
found = [hit.id for hit in index.search("text")]
try:
    ColBERTIndex.open(sys.argv[1], ToyEncoder())
except IndexWriteError as error:
    refused = "read_only=True" in str(error)
print(json.dumps([found, index.verify().passages, refused]))
index.close()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_an_index_on_a_read_only_file_system_is_searched(path: Path, killed: bool) -> None:
    """Closed properly, or with the write-ahead log of a writer that was killed."""
    require_mounts()
    make_index(path, killed)
    before = contents(path)
    ran = run_mounted('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', SEARCH, path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [["a", "b"], 2, True]
    assert contents(path) == before


@pytest.mark.parametrize("killed", [False, True])
def test_an_index_of_somebody_else_is_searched(killed: bool) -> None:
    """The folder may be read but not written. Root may write anywhere, so for it the child becomes nobody."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index"
        make_index(path, killed)
        path.parent.chmod(0o755)
        for item in [path, *path.rglob("*")]:
            item.chmod(0o555 if item.is_dir() else 0o444)
        before = contents(path)
        told = output_of(start(BECOME_NOBODY + SEARCH, path))
        assert json.loads(told) == [["a", "b"], 2, True]
        assert contents(path) == before
        for item in [path, *path.rglob("*")]:
            item.chmod(0o755)


def test_a_reader_without_write_permission_sees_commits_made_later() -> None:
    """It opened while nobody wrote; then its owner writes, closes, and writes again."""
    if os.geteuid() != 0:
        pytest.skip("needs two users: the owner, and one who may only read")
    code = """
import sys, json
with ColBERTIndex.open(sys.argv[1], ToyEncoder(), read_only=True) as index:
    for line in sys.stdin:
        print(json.dumps(sorted(hit.id for hit in index.search("text", 50))), flush=True)
"""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index"
        path.parent.chmod(0o755)
        make_index(path, killed=False)
        child = start(BECOME_NOBODY + code, path)
        assert child.stdin is not None and child.stdout is not None

        def ask() -> list[str]:
            print("?", file=child.stdin, flush=True)
            assert child.stdout is not None
            answer: list[str] = json.loads(child.stdout.readline())
            return answer

        try:
            assert ask() == ["a", "b"]
            for key in "cde":
                with ColBERTIndex.open(path, ToyEncoder()) as index:
                    index.upsert([Passage(key, "text")])
                    assert key in ask()
                    index.delete(["a"])
                    index.compact()
                    assert "a" not in ask()
                assert ask()[-1] == key
            assert ask() == ["b", "c", "d", "e"]
        finally:
            child.stdin.close()
            child.wait()
            assert child.stderr is not None
            assert child.stderr.read() == ""


def make_index(path: Path, killed: bool) -> None:
    code = """
import os, signal, sys
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, Passage
index = ColBERTIndex.create(sys.argv[1], ToyEncoder())
index.upsert([Passage("a", "text")])
index.upsert([Passage("b", "words")])
if len(sys.argv) > 2:
    os.kill(os.getpid(), signal.SIGKILL)
index.close()
"""
    child = start(code, path, *(["killed"] if killed else []))
    child.communicate()
    assert (path / "catalog.sqlite-wal").exists() == killed


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_temporary_index_closed_under_busy_threads_leaves_nothing() -> None:
    for _ in range(8):
        index = ColBERTIndex.create(None, ToyEncoder())
        index.upsert([f"word {number} fox" for number in range(20)])
        searching = threading.Barrier(5)

        def search(index: ColBERTIndex, searching: threading.Barrier) -> None:
            index.search("fox", 3)
            searching.wait()
            with contextlib.suppress(IndexClosedError):
                while True:
                    # Answered in full or not at all: nothing is taken away from under a search.
                    assert len(index.search("fox", 3)) == 3

        with ThreadPoolExecutor(4) as pool:
            busy = [pool.submit(search, index, searching) for _ in range(4)]
            searching.wait()
            index.close()
            # At once, and for good.
            assert not index.path.exists()
        assert [future.result() for future in busy] == [None] * 4
        assert not index.path.exists()
