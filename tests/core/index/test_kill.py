"""A writer killed by SIGKILL at any moment leaves its last commit."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grown import KEPT, small_copy
from killed_writers import State, change, require_sound, state_of, states_of
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor fork")


def kill_a_writer(path: Path, seed: int, first: int, delay: float, warm: Path | None) -> list[int]:
    """Kill a child that has written for `delay` seconds since its opening; return its number of finished changes."""
    code = "import killed_writers as writers; "
    code += f"writers.write_until_killed({str(path)!r}, {seed}, {first}, {warm and str(warm)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=child_env())
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"open\n"
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        told = child.stdout.read().split()
    assert child.wait() == -signal.SIGKILL
    return [int(number) for number in told]


def kill_often(path: Path, times: int, seed: int, *, compressed: bool = False) -> int:
    """Kill writers at random moments, one after another on the same index; return the number of finished changes."""
    moments = random.Random(seed)
    state: State = dict(KEPT) if compressed else {}
    warm = None
    if compressed:
        small_copy(path)
        warm = Path(shutil.copytree(path, f"{path}-warm"))
    else:
        ColBERTIndex.create(path, ToyEncoder()).close()
    number = 0
    for _ in range(times):
        told = kill_a_writer(path, seed, number, moments.uniform(0, 0.5), warm)
        assert told == list(range(number, number + len(told)))
        for _ in told:
            state = states_of(state, *change(seed, number))[-1]
            number += 1
        with ColBERTIndex.open(path, ToyEncoder(), read_only=True) as reader:
            found = state_of(reader)
        # All that was said to be made is there; of the change that was under way, whole commits are.
        assert found in [state, *states_of(state, *change(seed, number))]
        state = found
        with ColBERTIndex.open(path, ToyEncoder()) as index:
            assert state_of(index) == state
            require_sound(index, state)
        number += 1
    return number - times


def run_killing(call: str) -> int:
    """Run a function of `killed_writers` in a process without threads, even OpenMP's, because it forks."""
    code = f"from pathlib import Path; import killed_writers; killed_writers.{call}"
    env = {**child_env(), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_five_kills(tmp_path: Path) -> None:
    assert kill_often(tmp_path / "index", 5, seed=1) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("compressed", "kills"), [(False, 20), (True, 10)])
def test_many_kills(tmp_path: Path, compressed: bool, kills: int) -> None:
    assert kill_often(tmp_path / "index", kills, seed=2, compressed=compressed) > kills


@pytest.mark.slow
def test_kills_at_lines_spread_over_the_writer(tmp_path: Path) -> None:
    assert run_killing(f"changes_at_lines(Path({str(tmp_path)!r}), points=20, seed=3, changes=14)") == 20


@pytest.mark.slow
def test_kills_at_lines_of_the_writer_of_a_compressed_index(tmp_path: Path) -> None:
    call = f"changes_at_lines(Path({str(tmp_path)!r}), points=8, seed=3, changes=14, compressed=True)"
    assert run_killing(call) == 8


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_kills_at_many_lines_of_the_writer(tmp_path: Path, compressed: bool) -> None:
    call = f"changes_at_lines(Path({str(tmp_path)!r}), points=24, seed=3, changes=14, compressed={compressed})"
    assert run_killing(call) == 24


@pytest.mark.slow
def test_kills_at_many_lines_of_the_first_compression(tmp_path: Path) -> None:
    assert run_killing(f"growth_at_lines(Path({str(tmp_path)!r}), points=15)") == 15


@pytest.mark.slow
def test_a_killed_create_left_an_index_or_nothing_in_the_way(tmp_path: Path) -> None:
    assert run_killing(f"creates_at_lines(Path({str(tmp_path)!r}), step=8)") > 100
