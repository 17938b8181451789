"""Writers to be killed, and what must then be found. Changes are made up from a seed, so that they can be replayed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from toy import ToyEncoder, check_hits

import rerank_integrations
from rerank_integrations import ColBERTIndex, IndexExistsError, Passage

State = dict[str, Passage]

IDS = [f"p{number}" for number in range(400)]
WORDS = ["red", "green", "blue", "fox", "frog", "whale"]
# What one upsert commits at once.
COMMIT = 256


def change(seed: int, number: int) -> tuple[str, list[Any]]:
    """The change of this number: its kind and what it is given."""
    drawn = random.Random(f"{seed}-{number}")

    def passage(name: int) -> Passage:
        return Passage(IDS[name], f"{drawn.choice(WORDS)} {drawn.choice(WORDS)} {number}", {"n": number})

    kind = drawn.choices(["upsert", "long upsert", "delete", "compact"], [6, 1, 2, 1])[0]
    if kind == "upsert":
        return kind, [passage(drawn.randrange(60)) for _ in range(drawn.randint(1, 6))]
    if kind == "long upsert":
        return kind, [passage(100 + place) for place in range(COMMIT + 44)]
    if kind == "delete":
        return kind, [IDS[drawn.randrange(60)] for _ in range(20)]
    return kind, []


def make(index: ColBERTIndex, kind: str, given: list[Any]) -> None:
    if kind.endswith("upsert"):
        index.upsert(given)
    elif kind == "delete":
        index.delete(given)
    else:
        index.compact()


def states_of(state: State, kind: str, given: list[Any]) -> list[State]:
    """The states that a change passes through, one a commit; the last one is what it leaves."""
    if kind.endswith("upsert"):
        states = []
        for start in range(0, len(given), COMMIT):
            state = {**state, **{passage.id: passage for passage in given[start : start + COMMIT]}}
            states.append(state)
        return states
    return [{key: passage for key, passage in state.items() if key not in given}]


def state_of(index: ColBERTIndex) -> State:
    """All that an index holds."""
    found = {passage.id: passage for passage in index.get(IDS)}
    assert len(found) == len(index)
    return found


def require_sound(index: ColBERTIndex, state: State) -> None:
    assert index.verify().passages == len(state)
    folder = index.path / "segments"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    assert len(names) == index.stats().segments, names
    texts = {key: passage.text for key, passage in state.items()}
    check_hits(ToyEncoder(), "red fox 3", texts, 20, index.search("red fox 3", 20))


def write_until_killed(path: str, seed: int, first: int) -> None:
    """Open the index and change it for ever; a line on stdout for each change that has returned."""
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        os.write(1, b"open\n")
        number = first
        while True:
            make(index, *change(seed, number))
            os.write(1, b"%d\n" % number)
            number += 1


# What follows forks, so it runs in a process that has no threads.


def changes_at_lines(path: Path, points: int, seed: int, changes: int) -> None:
    """Make the same changes again and again, each time killed at a later line of the package's index code."""
    assert {change(seed, number)[0] for number in range(changes)} == {"upsert", "long upsert", "delete", "compact"}
    ColBERTIndex.create(path / "empty", ToyEncoder()).close()
    (path / "whole").mkdir()
    done, lines = _die_at_line(-1, _changing(path / "empty", path / "whole" / "index", seed, changes))
    assert done == changes + 1
    for point in range(points):
        folder = path / f"killed-{point}"
        line = 1 + lines * point // points
        done, end = _die_at_line(line, _changing(path / "empty", folder, seed, changes))
        assert not end, f"line {line} was not reached"
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            state = state_of(index)
            assert state in _possible(seed, changes, done), f"killed at line {line}"
            require_sound(index, state)
            index.upsert([*state.values(), Passage(IDS[-1], "one more")])
            index.compact()
            assert index.verify().passages == len({*state, IDS[-1]})
        shutil.rmtree(folder)
    print(points)


def creates_at_lines(path: Path, step: int) -> None:
    """Make an index, killed at each `step`-th line: it is there whole, or can be made again."""
    line, end = 1, 0
    while not end:
        folder = path / f"index-{line}"
        _, end = _die_at_line(line, lambda done: ColBERTIndex.create(folder, ToyEncoder()).close())  # noqa: B023
        try:
            index = ColBERTIndex.create(folder, ToyEncoder())
        except IndexExistsError:
            index = ColBERTIndex.open(folder, ToyEncoder())
        with index:
            index.upsert(["a text"])
            assert index.verify().passages == 1
        line += step
    print(line)


def _changing(empty: Path, folder: Path, seed: int, changes: int) -> Callable[[Callable[[], None]], None]:
    shutil.copytree(empty, folder)

    def action(done: Callable[[], None]) -> None:
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            for number in range(changes):
                make(index, *change(seed, number))
                done()
        with ColBERTIndex.create(folder, ToyEncoder(), overwrite=True):
            done()

    return action


def _possible(seed: int, changes: int, done: int) -> list[State]:
    # `changes` changes, then an overwrite that empties; `done` of them have returned, the next may have committed.
    state: State = {}
    for number in range(min(done, changes)):
        state = states_of(state, *change(seed, number))[-1]
    if done == changes + 1:
        return [{}]
    return [state, *([{}] if done == changes else states_of(state, *change(seed, done)))]


def _die_at_line(line: int, action: Callable[[Callable[[], None]], None]) -> tuple[int, int]:
    """Fork, and kill the child at that line of the index code; how often it said done, and the lines of a full run."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run_traced(line, action, send)
    os.close(send)
    with os.fdopen(receive) as stream:
        told = stream.read().split()
    _, status = os.waitpid(child, 0)
    ended = [int(word) for word in told if word != "done"]
    assert ended or os.WTERMSIG(status) == signal.SIGKILL
    return told.count("done"), sum(ended)


def _run_traced(line: int, action: Callable[[Callable[[], None]], None], send: int) -> None:
    ours = str(Path(rerank_integrations.__file__).parent / "core" / "index")
    seen = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(ours):
            return None
        seen += event == "line"
        if seen == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def done() -> None:
        os.write(send, b"done ")

    sys.settrace(count)
    try:
        action(done)
        os.write(send, b"%d" % seen)
    finally:
        os._exit(0)
