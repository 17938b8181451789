"""Kill writers, and check the index that they leave. Changes follow from a seed, so that they can be replayed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from grown import KEPT, WORD_ERROR, large_copy, many, small_copy
from toy import ToyEncoder, check_hits

import rerank_integrations
from rerank_integrations import ColBERTIndex, IndexExistsError, Passage

State = dict[str, Passage]

IDS = [*(f"p{number}" for number in range(400)), *KEPT]
WORDS = ["red", "green", "blue", "fox", "frog", "whale"]
# Passages of an upsert that are committed together.
COMMIT = 256


def change(seed: int, number: int) -> tuple[str, list[Any]]:
    """Return the kind and the arguments of the change with this number."""
    drawn = random.Random(f"{seed}-{number}")

    def passage(name: int) -> Passage:
        return Passage(IDS[name], f"{drawn.choice(WORDS)} {drawn.choice(WORDS)} {number % 40}", {"n": number})

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
    """Return the states after each commit of a change; the last one is its result."""
    if kind.endswith("upsert"):
        states = []
        for start in range(0, len(given), COMMIT):
            state = {**state, **{passage.id: passage for passage in given[start : start + COMMIT]}}
            states.append(state)
        return states
    return [{key: passage for key, passage in state.items() if key not in given}]


def state_of(index: ColBERTIndex) -> State:
    """Return the whole content of an index."""
    return state_in(index, IDS)


def state_in(index: ColBERTIndex, ids: list[str]) -> State:
    """Return the whole content of an index whose passages have no ids but these."""
    found = {passage.id: passage for passage in index.get(ids)}
    assert len(found) == len(index)
    return found


def require_sound(index: ColBERTIndex, state: State) -> None:
    """Assert that the files are those of the catalog, and the answers those of the vectors up to compression."""
    assert index.verify().passages == len(state)
    stats = index.stats()
    compressed = stats.kind == "plaid"
    assert [len(_names(index.path / kind)) for kind in ("segments", "codecs")] == [stats.segments, compressed]
    texts = {key: passage.text for key, passage in state.items()}
    tolerance = 3 * WORD_ERROR if compressed else 1e-5
    check_hits(ToyEncoder(), "red fox 3", texts, 20, index.search("red fox 3", 20), tolerance=tolerance)
    everything = index.search("red fox 3", len(state))
    assert everything == index.search("red fox 3", len(state), exact=True)
    assert {hit.id: Passage(hit.id, hit.text, hit.metadata) for hit in everything} == state


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def write_until_killed(path: str, seed: int, first: int, warm: str | None) -> None:
    """Open the index and change it without end; print one line per change that has returned.

    Before that, change the index `warm`, if any: a compressed one needs a second to load its libraries.
    """
    if warm is not None:
        with ColBERTIndex.open(warm, ToyEncoder()) as index:
            index.upsert([Passage("warm", f"text {first}")])
            assert len(index.search("text")) == 10
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        os.write(1, b"open\n")
        number = first
        while True:
            make(index, *change(seed, number))
            os.write(1, b"%d\n" % number)
            number += 1


# The code below forks, so it runs in a process without threads.


def changes_at_lines(path: Path, points: int, seed: int, changes: int, *, compressed: bool = False) -> None:
    """Make the same changes again and again, each time killed at a later line of the package's index code."""
    assert {change(seed, number)[0] for number in range(changes)} == {"upsert", "long upsert", "delete", "compact"}
    begun: State = dict(KEPT) if compressed else {}
    if compressed:
        small_copy(path / "begun")
    else:
        ColBERTIndex.create(path / "begun", ToyEncoder()).close()
    (path / "whole").mkdir()
    done, lines = die_at_line(-1, _changing(path / "begun", path / "whole" / "index", seed, changes))
    assert done == changes + 1
    for point in range(points):
        folder = path / f"killed-{point}"
        line = 1 + lines * point // points
        done, end = die_at_line(line, _changing(path / "begun", folder, seed, changes))
        assert not end, f"line {line} was not reached"
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            state = state_of(index)
            assert state in _possible(begun, seed, changes, done), f"killed at line {line}"
            require_sound(index, state)
            index.upsert([*state.values(), Passage("p399", "one more")])
            index.compact()
            assert index.verify().passages == len({*state, "p399"})
        shutil.rmtree(folder)
    print(points)


def growth_at_lines(path: Path, points: int) -> None:
    """Let an upsert grow an index until it compresses itself, each time killed at a line not met before."""
    # Everything that a process imports or makes once is ready before the children start.
    large_copy(path / "large")
    before, more = many(4000), many(4100)[4000:]
    with ColBERTIndex.create(path / "begun", ToyEncoder()) as index:
        index.upsert(before)
    (path / "whole").mkdir()
    done, lines = die_at_line(-1, _growing(path / "begun", path / "whole" / "index", more), again=False)
    assert done == 1
    kinds = set()
    for point in range(points):
        folder = path / f"killed-{point}"
        line = 1 + lines * point // points
        _, end = die_at_line(line, _growing(path / "begun", folder, more), again=False)
        assert not end, f"line {line} was not reached"
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            # The passages first, then their compressed form.
            committed = len(index) > len(before)
            assert index.get(passage.id for passage in [*before, *more]) == [*before, *(more if committed else [])]
            kinds.add((committed, index.stats().kind))
            require_sound(index, {passage.id: passage for passage in [*before, *(more if committed else [])]})
            index.upsert([*more, Passage("one more", "red fox")])
            assert (index.stats().kind, len(index)) == ("plaid", 4101)
            require_sound(index, {passage.id: passage for passage in [*before, *more, Passage("one more", "red fox")]})
        shutil.rmtree(folder)
    # A few points may all be on one side of the first commit.
    assert points < 20 or {(False, "exact"), (True, "exact")} <= kinds, kinds
    print(points)


def creates_at_lines(path: Path, step: int) -> None:
    """Make an index, killed at each `step`-th line: it is complete, or can be made again."""
    line, end = 1, 0
    while not end:
        folder = path / f"index-{line}"
        _, end = die_at_line(line, lambda done: ColBERTIndex.create(folder, ToyEncoder()).close())  # noqa: B023
        try:
            index = ColBERTIndex.create(folder, ToyEncoder())
        except IndexExistsError:
            index = ColBERTIndex.open(folder, ToyEncoder())
        with index:
            index.upsert(["a text"])
            assert index.verify().passages == 1
        line += step
    print(line)


def overwrites_at_lines(path: Path, points: int) -> None:
    """Overwrite an index by a new one, each time killed at a later line: the old or the new one is complete."""
    old = {f"p{number}": Passage(f"p{number}", f"red fox {number}") for number in range(9)}
    with ColBERTIndex.create(path / "begun", ToyEncoder()) as index:
        index.upsert(old.values())

    def overwriting(folder: Path) -> Callable[[Callable[[], None]], None]:
        shutil.copytree(path / "begun", folder)

        def action(done: Callable[[], None]) -> None:
            with ColBERTIndex.create(folder, ToyEncoder(), overwrite=True) as index:
                done()
                index.upsert([Passage("new", "red whale")])
                done()

        return action

    (path / "whole").mkdir()
    done, lines = die_at_line(-1, overwriting(path / "whole" / "index"))
    assert done == 2
    for point in range(points):
        folder = path / f"killed-{point}"
        done, _ = die_at_line(1 + lines * point // points, overwriting(folder))
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            state = state_in(index, [*old, "new"])
            assert state in ([old, {}], [{}, {"new": Passage("new", "red whale")}])[min(done, 1)], point
            index.upsert(["one more"])
            assert index.verify().passages == len(state) + 1
        shutil.rmtree(folder)
    print(points)


def kill_at_moments(path: Path, times: int, seed: int, *, compressed: bool = False) -> None:
    """Kill writers at random moments, one after the other on the same index."""
    moments = random.Random(seed)
    state: State = dict(KEPT) if compressed else {}
    if compressed:
        small_copy(path / "index")
    else:
        ColBERTIndex.create(path / "index", ToyEncoder()).close()
    number = 0
    for _ in range(times):
        for _ in range(_killed_after(path / "index", seed, number, moments.uniform(0, 0.5))):
            state = states_of(state, *change(seed, number))[-1]
            number += 1
        with ColBERTIndex.open(path / "index", ToyEncoder(), read_only=True) as reader:
            found = state_of(reader)
        assert found in [state, *states_of(state, *change(seed, number))]
        state = found
        with ColBERTIndex.open(path / "index", ToyEncoder()) as index:
            assert state_of(index) == state
            require_sound(index, state)
        number += 1
    print(times)


def _killed_after(path: Path, seed: int, first: int, delay: float) -> int:
    """Fork a writer, kill it `delay` seconds after it opened the index; return the number of finished changes."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(send, 1)
        write_until_killed(str(path), seed, first, None)
    os.close(send)
    with os.fdopen(receive) as stream:
        assert stream.readline() == "open\n"
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        told = stream.read().split()
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return len(told)


def _growing(begun: Path, folder: Path, more: list[Passage]) -> Callable[[Callable[[], None]], None]:
    shutil.copytree(begun, folder)

    def action(done: Callable[[], None]) -> None:
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            index.upsert(more)
            assert index.stats().kind == "plaid"
            done()

    return action


def _changing(begun: Path, folder: Path, seed: int, changes: int) -> Callable[[Callable[[], None]], None]:
    shutil.copytree(begun, folder)

    def action(done: Callable[[], None]) -> None:
        with ColBERTIndex.open(folder, ToyEncoder()) as index:
            for number in range(changes):
                make(index, *change(seed, number))
                done()
        with ColBERTIndex.create(folder, ToyEncoder(), overwrite=True):
            done()

    return action


def _possible(state: State, seed: int, changes: int, done: int) -> list[State]:
    # `changes` changes, then an overwrite that empties; `done` of them have returned, the next may have committed.
    for number in range(min(done, changes)):
        state = states_of(state, *change(seed, number))[-1]
    if done == changes + 1:
        return [{}]
    return [state, *([{}] if done == changes else states_of(state, *change(seed, done)))]


def die_at_line(line: int, action: Callable[[Callable[[], None]], None], *, again: bool = True) -> tuple[int, int]:
    """Fork and kill the child at that line of the index code; return its finished changes, and the lines of a full run.

    With `again` a line counts each time that it runs, else only the first time.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run_traced(line, action, send, again)
    os.close(send)
    with os.fdopen(receive) as stream:
        told = stream.read().split()
    _, status = os.waitpid(child, 0)
    ended = [int(word) for word in told if word != "done"]
    assert ended or os.WTERMSIG(status) == signal.SIGKILL
    return told.count("done"), sum(ended)


def _run_traced(line: int, action: Callable[[Callable[[], None]], None], send: int, again: bool) -> None:
    ours = str(Path(rerank_integrations.__file__).parent / "core" / "index")
    seen = 0
    met: set[tuple[Any, int]] = set()

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(ours):
            return None
        place = frame.f_code, frame.f_lineno
        seen += event == "line" and (again or place not in met)
        met.add(place)
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
