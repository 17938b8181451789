"""Kernels are compiled before the first query, in another process, and stored where only this user can write."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_systems import require_mounts, run_mounted
from filelock import FileLock
from row_encoder import RowEncoder, numbered
from toy import child_env

from rerank_integrations import ColBERTIndex, IndexClosedError
from rerank_integrations.core.index.plaid import code_folder

PLAID = Path(code_folder.__file__).parent
# Whatever the environment of the tests says.
FOLDERS = ("NUMBA_CACHE_DIR", "RERANK_INTEGRATIONS_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR")
READ_ONLY = f"mount --bind {PLAID} {PLAID} && mount -o remount,ro,bind {PLAID}"
# Read-only, not hidden: the checkout may be in one of them.
NO_TEMPORARY = "for d in /tmp /var/tmp; do mount --bind $d $d && mount -o remount,ro,bind $d || exit; done && cd /proc"

SEARCH = """
import sys
from row_encoder import RowEncoder
from rerank_integrations import ColBERTIndex
with ColBERTIndex.open(sys.argv[1], RowEncoder(8, 1, 50), read_only=True) as index:
    assert len(index.search("7")) == 10
from rerank_integrations.core.index.plaid import centroid_kernels, token_kernels
loops = token_kernels.finalists, centroid_kernels.query_tables, centroid_kernels.centroid_levels, token_kernels.maxsim
print(sum(len(loop.stats.cache_misses) for loop in loops))
"""


def environment(**folders: object) -> dict[str, str]:
    kept = {key: value for key, value in child_env().items() if key not in FOLDERS}
    return {**kept, **{key: str(value) for key, value in folders.items()}}


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "index"
    with ColBERTIndex.create(path, RowEncoder(8, 1, 50)) as index:
        index.upsert(numbered(range(4100)))
        assert index.stats().kind == "plaid"
    return path


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_the_lowest_are_as_numpy_finds_them(bad: float) -> None:
    from rerank_integrations.core.index.plaid.token_kernels import nth_lowest

    random = np.random.default_rng(3)
    for count in (1, 2, 3, 50, 400):
        scores = random.integers(0, max(2, count // 3), count).astype(np.float64)
        place = int(random.integers(0, count))
        assert nth_lowest.py_func(scores.copy(), place) == np.partition(scores, place)[place]
        scores[random.integers(0, count, count // 4)] = bad
        # Of NaN no order is asked, but an end.
        nth_lowest.py_func(scores.copy(), place)


def test_an_exact_index_compiles_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
from row_encoder import RowEncoder, numbered
from rerank_integrations import ColBERTIndex
with ColBERTIndex.create(None, RowEncoder(8, 1, 50)) as index:
    index.upsert(numbered(range(20)))
    index.search("7")
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no child", "numba" in sys.modules)
"""
    env = environment(NUMBA_CACHE_DIR=tmp_path / "numba")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "no child False"
    assert not (tmp_path / "numba").exists()


def test_nothing_starts_once_all_is_compiled(compressed: Path) -> None:
    code = "import os, sys; from row_encoder import RowEncoder; from rerank_integrations import ColBERTIndex\n"
    code += "ColBERTIndex.open(sys.argv[1], RowEncoder(8, 1, 50), read_only=True)\nos.waitpid(-1, os.WNOHANG)"
    command = [sys.executable, "-c", code, str(compressed)]
    done = subprocess.run(command, env=child_env(), capture_output=True, text=True, check=False)
    assert "ChildProcessError" in done.stderr


def test_warming_up_takes_any_index(compressed: Path) -> None:
    with ColBERTIndex.create(None, RowEncoder(8, 1, 50)) as index:
        index.warm_up()
        index.upsert(["7"])
        index.warm_up()
    with ColBERTIndex.open(compressed, RowEncoder(8, 1, 50), read_only=True) as index:
        index.warm_up()
    with pytest.raises(IndexClosedError):
        index.warm_up()


@contextlib.contextmanager
def waiting_child(folder: Path, then: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process whose compiling child waits because another compiles; the process then runs `code` on request."""
    code = f"""
import os, sys, threading
from rerank_integrations.core.index.plaid import warming
print(warming.writable_folder(), flush=True)
sys.stdin.readline()
threading.Thread(target=warming.require_compiled, args=(2,), daemon=True).start()
children = []
while not children:
    for task in os.listdir("/proc/self/task"):
        children += open(f"/proc/self/task/{{task}}/children").read().split()
print(*children, flush=True)
sys.stdin.readline()
{then}
"""
    env = environment(NUMBA_CACHE_DIR=folder)
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        place = Path(process.stdout.readline().strip())
        with FileLock(place / "compiling.lock"):
            print(file=process.stdin, flush=True)
            yield process, int(process.stdout.readline())


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["exits", "is killed"])
def test_a_compiling_child_ends_with_its_parent(tmp_path: Path, end: str) -> None:
    with waiting_child(tmp_path, "") as (process, child):
        assert is_running(child)
        if end == "exits":
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        else:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for _ in range(600):
            if not is_running(child):
                break
            time.sleep(0.1)
        assert not is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_forked_process_leaves_its_parents_child_alone(tmp_path: Path) -> None:
    then = "if os.fork() == 0:\n    sys.exit()\nos.wait()\nprint('forked', flush=True)\nsys.stdin.readline()"
    with waiting_child(tmp_path, then) as (process, child):
        assert process.stdin is not None and process.stdout is not None
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "forked\n"
        assert is_running(child)
        print(file=process.stdin, flush=True)


WHERE = "from rerank_integrations.core.index.plaid.code_folder import writable_folder; print(writable_folder())"


def where(monkeypatch: pytest.MonkeyPatch, mount: str, **folders: object) -> str:
    require_mounts()
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in folders.items():
        monkeypatch.setenv(name, str(value))
    done = run_mounted(mount, WHERE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_read_only_package_compiles_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"RERANK_INTEGRATIONS_CACHE": tmp_path / "cache", "TMPDIR": tmp_path}
    found = Path(where(monkeypatch, READ_ONLY, **folders))
    assert found.parent == tmp_path / "cache" / "compiled"
    assert stat.S_IMODE(found.stat().st_mode) == stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    found.chmod(0o770)
    # What others may write may hold their code: the next folder is taken.
    assert Path(where(monkeypatch, READ_ONLY, **folders)).parent == tmp_path / f"rerank-integrations-{os.getuid()}"


def test_a_folder_that_is_a_link_or_in_one_for_all_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"RERANK_INTEGRATIONS_CACHE": tmp_path / "cache", "TMPDIR": tmp_path / "temporary"}
    (tmp_path / "temporary").mkdir(mode=0o700)
    found = Path(where(monkeypatch, READ_ONLY, **folders))
    found.rename(tmp_path / "elsewhere")
    found.symlink_to(tmp_path / "elsewhere")
    assert where(monkeypatch, READ_ONLY, **folders).startswith(str(tmp_path / "temporary"))
    (tmp_path / "temporary").chmod(0o777)
    assert where(monkeypatch, READ_ONLY, **folders) == "None"


def test_the_users_choice_for_numba_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert where(monkeypatch, "true", NUMBA_CACHE_DIR=tmp_path / "numba").startswith(str(tmp_path / "numba"))


def test_no_home_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = where(monkeypatch, READ_ONLY, HOME="/proc/none", TMPDIR=tmp_path)
    assert found.startswith(str(tmp_path))


@pytest.mark.slow
def test_lengths_are_measured_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    require_mounts()
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    code = """
import numpy as np
from rerank_integrations.core.index.plaid.code_folder import writable_folder
from rerank_integrations.core.index.plaid.compression import vector_lengths
codebook = np.zeros((256, 4), np.float32)
residuals = np.zeros((3, 2), np.uint8)
print(writable_folder(), vector_lengths(np.eye(8, dtype=np.float32), codebook, np.arange(3), residuals))
"""
    done = run_mounted(f"{READ_ONLY} && {NO_TEMPORARY}", code)
    assert done.stdout == "None [1. 1. 1.]\n", done.stderr


@pytest.mark.slow
def test_a_process_that_searches_compiles_nothing(compressed: Path, tmp_path: Path) -> None:
    env = environment(NUMBA_CACHE_DIR=tmp_path / "numba")
    command = [sys.executable, "-c", SEARCH, str(compressed)]
    # At once, on an empty cache.
    processes = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["0\n"] * 3
    files = [file.name for file in tmp_path.rglob("*.nbc")]
    # A second process that compiled would have left its own, or none have.
    assert files and all(name.endswith(".1.nbc") for name in files)


@pytest.mark.slow
def test_what_is_broken_in_the_cache_is_compiled_again(compressed: Path, tmp_path: Path) -> None:
    env = environment(NUMBA_CACHE_DIR=tmp_path / "numba")
    command = [sys.executable, "-c", SEARCH, str(compressed)]
    assert subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout == "0\n"
    for file in (tmp_path / "numba").rglob("centroid_kernels.*.nb?"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout == "2\n"


@pytest.mark.slow
def test_what_was_compiled_before_the_package_was_read_only_is_used(
    compressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_mounts()
    with ColBERTIndex.open(compressed, RowEncoder(8, 1, 50), read_only=True) as index:
        index.warm_up()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    code = SEARCH.replace("sys.argv[1]", repr(str(compressed)))
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(tmp_path))
    done = run_mounted(READ_ONLY, code)
    assert done.stdout == "0\n", done.stderr
    assert not list(tmp_path.rglob("*.nbc"))
