"""Many readers beside one writer, in this process and in others, and on read-only media."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from file_systems import require_mounts, run_mounted
from grown import large_copy
from toy import ToyEncoder, child_env

from rerank_integrations import (
    ColBERTIndex,
    IndexClosedError,
    IndexLockedError,
    IndexMovedError,
    IndexReadError,
    IndexWriteError,
    Passage,
)

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


# --- a folder that is replaced under its readers ---


def make(path: Path, word: str) -> Path:
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(Passage(f"{word}{number}", f"common {word} {number}") for number in range(3))
    return path


def answer_of(reader: ColBERTIndex) -> list[tuple[str, str]]:
    """Return the hits of a search, after comparing them with the passages of a look-up."""
    hits = sorted(reader.search("common", 50), key=lambda hit: hit.id)
    assert all(abs(hit.score - 1) < 1e-3 for hit in hits)
    return [(hit.id, hit.text) for hit in hits]


def answers_of_threads(reader: ColBERTIndex, count: int = 6) -> list[list[tuple[str, str]]]:
    """Return the answers of threads that search together, so that they need more connections than are open."""
    barrier = threading.Barrier(count)
    found: list[list[tuple[str, str]]] = []

    def ask() -> None:
        barrier.wait(10)
        found.append(answer_of(reader))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    return found


@pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be moved")
@pytest.mark.parametrize("old_is_removed", [False, True])
def test_a_reader_follows_its_path_to_another_index(tmp_path: Path, old_is_removed: bool) -> None:
    """A deployment by ``mv``: answers are all of the old index, then all of the new one, with equal commit numbers."""
    live, new = make(tmp_path / "live", "old"), make(tmp_path / "new", "new")
    expected = [(f"new{number}", f"common new {number}") for number in range(3)]
    with ColBERTIndex.open(live, ToyEncoder(), read_only=True) as reader:
        assert [key for key, _ in answer_of(reader)] == ["old0", "old1", "old2"]
        live.rename(tmp_path / "elsewhere")
        # Between the two steps of a deployment the old one answers.
        assert [key for key, _ in answer_of(reader)] == ["old0", "old1", "old2"]
        new.rename(live)
        if old_is_removed:
            shutil.rmtree(tmp_path / "elsewhere")
        assert answers_of_threads(reader) == [expected] * 6
        assert answer_of(reader) == expected
        assert reader.get(["old0", "new0"]) == [Passage("new0", "common new 0")]
        assert reader.verify().passages == 3
        with ColBERTIndex.open(live, ToyEncoder()) as writer:
            writer.upsert([Passage("new3", "common new 3")])
        assert len(answer_of(reader)) == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be moved")
def test_a_reader_tells_an_index_from_its_copy(tmp_path: Path) -> None:
    """The copy has the same folders, commits and counts; only the deleted passages differ."""
    live = make(tmp_path / "live", "old")
    copy = Path(shutil.copytree(live, tmp_path / "copy"))
    for path, key in ((live, "old0"), (copy, "old1")):
        with ColBERTIndex.open(path, ToyEncoder()) as index:
            index.delete([key])
    with ColBERTIndex.open(live, ToyEncoder(), read_only=True) as reader:
        assert [key for key, _ in answer_of(reader)] == ["old1", "old2"]
        live.rename(tmp_path / "elsewhere")
        copy.rename(live)
        assert [key for key, _ in answer_of(reader)] == ["old0", "old2"]


@pytest.mark.skipif(os.name != "posix", reason="Windows lets no open file be removed")
def test_a_reader_of_an_index_that_is_gone_says_so(tmp_path: Path) -> None:
    live = make(tmp_path / "live", "old")
    with ColBERTIndex.open(live, ToyEncoder(), read_only=True) as reader:
        shutil.rmtree(live)
        with pytest.raises(IndexMovedError, match="moved, replaced or removed"):
            reader.search("common")


# --- what readers hold open ---


def open_files(path: Path) -> int:
    folder = Path("/proc/self/fd")
    # The listing has itself open.
    links = [str(entry.readlink()) for entry in folder.iterdir() if entry.is_symlink()]
    return sum(link.startswith(str(path)) for link in links)


def mapped_files(path: Path) -> int:
    return sum(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts by /proc")
@pytest.mark.parametrize("compressed", [False, True])
def test_few_descriptors_are_held_and_close_gives_all_back(path: Path, compressed: bool) -> None:
    """The number does not depend on segments; the object itself and a cycle of references may live on."""
    if compressed:
        large_copy(path)
    with contextlib.closing(
        ColBERTIndex.open(path, ToyEncoder()) if compressed else ColBERTIndex.create(path, ToyEncoder())
    ) as writer:
        for number in range(15):
            writer.upsert([Passage(f"p{number}", f"text {number}")])
    gc.collect()
    gc.disable()
    try:
        reader = ColBERTIndex.open(path, ToyEncoder(), read_only=True)
        cycle = [reader]
        cycle.append(cycle)  # type: ignore[arg-type]
        reader.search("text 3", 3)
        answers_of = [threading.Thread(target=reader.search, args=("text 3", 3)) for _ in range(12)]
        for thread in answers_of:
            thread.start()
        for thread in answers_of:
            thread.join()
        assert mapped_files(path) >= (3 if compressed else 15)
        assert open_files(path) <= 24
        reader.close()
        assert (open_files(path), mapped_files(path)) == (0, 0)
    finally:
        gc.enable()


def test_a_search_under_way_at_close_ends_well(path: Path) -> None:
    """The search keeps its arrays until it is done."""
    errors: list[BaseException] = []
    begun = threading.Semaphore(0)

    def search(reader: ColBERTIndex) -> None:
        try:
            while True:
                assert len(reader.search("common", 3)) == 3
                begun.release()
        except IndexClosedError:
            pass
        except BaseException as error:
            errors.append(error)

    make(path, "some")
    for _ in range(3):
        reader = ColBERTIndex.open(path, ToyEncoder(), read_only=True)
        threads = [threading.Thread(target=search, args=(reader,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        reader.close()
        for thread in threads:
            thread.join()
    assert errors == []


# --- what the system refuses is no damage ---


@contextlib.contextmanager
def no_more_open_files() -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_too_many_open_files_are_said_as_such(path: Path) -> None:
    make(path, "some")
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader:
        assert len(reader.search("common")) == 3
        with no_more_open_files(), pytest.raises(IndexReadError, match="ulimit -n"):
            ColBERTIndex.open(path, ToyEncoder(), read_only=True)
        with ColBERTIndex.open(path, ToyEncoder()) as writer:
            writer.upsert([Passage("more", "common")])
            with no_more_open_files():
                # A new segment is to be mapped: the connection is there, the file is not.
                for call in (lambda: reader.search("common"), reader.verify):
                    with pytest.raises(IndexReadError, match="ulimit -n"):
                        call()
                with pytest.raises(IndexWriteError, match="ulimit -n"):
                    writer.upsert(["another"])
            assert len(reader.search("common")) == 4
            assert reader.verify().passages == 4
            with no_more_open_files(), pytest.raises(IndexWriteError, match="ulimit -n"):
                ColBERTIndex.create(path.with_name("other"), ToyEncoder())


def test_files_that_may_not_be_read_are_said_as_such() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users: the owner, and one who may not read")
    code = """
import sys
from rerank_integrations import IndexReadError
for call in (lambda index: index.search("text"), lambda index: index.verify()):
    try:
        with ColBERTIndex.open(sys.argv[1], ToyEncoder(), read_only=True) as index:
            call(index)
    except IndexReadError as error:
        print("permission" in str(error), "sound" in str(error))
"""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index"
        path.parent.chmod(0o755)
        make_index(path, killed=False)
        for item in (next((path / "segments").iterdir()), path / "catalog.sqlite"):
            item.chmod(0o700)
            assert output_of(start(BECOME_NOBODY + code, path)).split() == ["True"] * 4
            item.chmod(0o755)


WRITER = """
import sys, itertools
from test_readers import *
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
from test_readers import *
print(json.dumps(read_until(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def read_until(path: Path, last: int) -> dict[str, int]:
    """Search until the last version appears; every answer is of one commit, and none is older than the one before."""
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


@pytest.mark.slow
def test_readers_in_three_processes_beside_a_writer_that_compacts(path: Path) -> None:
    counts = run_beside_a_writer(path, 30)
    assert max(count["commits"] for count in counts) > 5


@pytest.mark.slow
def test_readers_in_three_processes_beside_a_writer_for_long(path: Path) -> None:
    counts = run_beside_a_writer(path, 300)
    assert min(count["commits"] for count in counts) > 25


def test_threads_read_and_write_one_index(path: Path) -> None:
    """Searches beside upserts, deletes, compactions and verifications raise no error and answer from one commit."""
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
    """An early return would free the lock, and another writer could remove segments that are not yet committed."""
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
    """As in a server that forks workers: they may search, close and forget the index, and the parent still writes."""
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
    """The index was closed properly, or has the write-ahead log of a killed writer."""
    require_mounts()
    make_index(path, killed)
    before = contents(path)
    ran = run_mounted('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', SEARCH, path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [["a", "b"], 2, True]
    assert contents(path) == before


@pytest.mark.parametrize("killed", [False, True])
def test_an_index_of_somebody_else_is_searched(killed: bool) -> None:
    """The folder is readable but not writable. Root may write anywhere, so then the child becomes nobody."""
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


CANNOT = """
import sys
from rerank_integrations import IndexReadError, IndexWriteError
for call in (
    lambda: ColBERTIndex.open(sys.argv[1], ToyEncoder(), read_only=True).close(),
    lambda: ColBERTIndex.open_or_create(sys.argv[1], ToyEncoder()).close(),
    lambda: ColBERTIndex.create(sys.argv[1], ToyEncoder(), overwrite=True).close(),
):
    try:
        call()
    except (IndexReadError, IndexWriteError) as error:
        print(type(error).__name__, sys.argv[2] in str(error))
"""


def test_a_folder_that_may_not_be_looked_into_is_said_as_such() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users: the owner, and one who may not look into the folder")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index"
        make_index(path, killed=False)
        path.parent.chmod(0o700)
        assert output_of(start(BECOME_NOBODY + CANNOT, path, "permission")).split() == [
            *["IndexReadError", "True"],
            *["IndexWriteError", "True"] * 2,
        ]


def test_a_writer_whose_folder_may_not_be_looked_into_any_more_was_not_moved() -> None:
    if os.geteuid() != 0:
        pytest.skip("root may look into every folder; this becomes nobody")
    code = """
import sys
from pathlib import Path
from rerank_integrations import IndexReadError
folder = Path(sys.argv[1])
with ColBERTIndex.create(folder / "index", ToyEncoder()) as index:
    folder.chmod(0)
    for call in (lambda: index.upsert(["a text"]), lambda: index.search("text")):
        try:
            call()
        except IndexReadError as error:
            print("permission" in str(error))
    folder.chmod(0o755)
    index.upsert(["a text"])
    print(len(index.search("text")) == 1)
"""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        assert output_of(start(BECOME_NOBODY + code, Path(name) / "folder")).split() == ["True"] * 3


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="elsewhere an inode may be given to another file")
def test_a_reader_notices_another_copy_after_a_fork_has_closed_its_connections(path: Path, tmp_path: Path) -> None:
    """The copies have the same index id and commit number, and on many file systems even the same inode."""
    make_index(path, killed=False)
    for name in ("one", "two"):
        shutil.copytree(path, tmp_path / name)
        with ColBERTIndex.open(tmp_path / name, ToyEncoder()) as copy:
            copy.upsert([Passage("a", f"text {name}"), Passage("b", f"text {name}")])
    with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader:
        for name in ("one", "two") * 4:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            shutil.rmtree(path)
            shutil.copytree(tmp_path / name, path)
            found = reader.search(f"text {name}")
            assert [hit.id for hit in found] == ["a", "b"]
            assert found[0].score == pytest.approx(2, abs=1e-3)


def test_a_log_without_its_shared_memory_where_nothing_may_be_written() -> None:
    """Like a copy of an index whose writer was killed: it is sound, but SQLite cannot read it there."""
    if os.geteuid() != 0:
        pytest.skip("needs two users: the owner, and one who may only read")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index"
        make_index(path, killed=True)
        path.parent.chmod(0o755)
        (path / "catalog.sqlite-shm").unlink()
        assert output_of(start(BECOME_NOBODY + CANNOT, path, "writable")).split() == ["IndexReadError", "True"] * 3


def test_a_reader_without_write_permission_sees_commits_made_later() -> None:
    """The reader opens while nobody writes; then the owner writes, closes, and writes again."""
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
