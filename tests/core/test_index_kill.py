"""A writer killed by SIGKILL at any moment leaves its last commit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killing import State, change, require_sound, state_of, states_of
from toy import ToyEncoder, child_env

from rerank_integrations import ColBERTIndex

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor fork")


def kill_a_writer(path: Path, seed: int, first: int, delay: float) -> list[int]:
    """Let a child write for `delay` seconds from its opening on; return the changes it said were made."""
    code = f"import killing; killing.write_until_killed({str(path)!r}, {seed}, {first})"
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


def kill_often(path: Path, times: int, seed: int) -> int:
    """Kill writers at random moments, one after the other on the same index; return how many changes were made."""
    moments = random.Random(seed)
    ColBERTIndex.create(path, ToyEncoder()).close()
    state: State = {}
    number = 0
    for _ in range(times):
        told = kill_a_writer(path, seed, number, moments.uniform(0, 0.5))
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
    """Run a function of `killing` in a process without threads, since it forks; return what it printed."""
    code = f"from pathlib import Path; import killing; killing.{call}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_env(), check=False)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_five_kills(tmp_path: Path) -> None:
    assert kill_often(tmp_path / "index", 5, seed=1) > 0


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    assert kill_often(tmp_path / "index", 50, seed=2) > 50


def test_kills_at_lines_spread_over_the_writer(tmp_path: Path) -> None:
    assert run_killing(f"changes_at_lines(Path({str(tmp_path)!r}), points=20, seed=3, changes=14)") == 20


@pytest.mark.slow
def test_kills_at_a_hundred_and_fifty_lines_of_the_writer(tmp_path: Path) -> None:
    assert run_killing(f"changes_at_lines(Path({str(tmp_path)!r}), points=150, seed=3, changes=14)") == 150


def test_a_killed_create_left_an_index_or_nothing_in_the_way(tmp_path: Path) -> None:
    assert run_killing(f"creates_at_lines(Path({str(tmp_path)!r}), step=8)") > 100
