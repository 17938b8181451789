"""A forked child can use every model and index, whatever the parent's other threads did at that moment."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import child_env

import rerank_integrations

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX systems fork")

FORKING = """
import faulthandler, os, sys, threading, time

def in_child(act):
    child = os.fork()
    if child == 0:
        # So that a child that waits forever says where, and ends.
        faulthandler.dump_traceback_later(60, exit=True)
        try:
            act()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

def busy(work):
    stop = threading.Event()
    def repeat():
        while not stop.is_set():
            work()
    threads = [threading.Thread(target=repeat) for _ in range(4)]
    [thread.start() for thread in threads]
    return lambda: (stop.set(), [thread.join() for thread in threads])
"""

MODELS = (
    FORKING
    + """
from rerank_integrations import ColBERTModel, CrossEncoderModel, loaded_models
kind = {"colbert": ColBERTModel, "cross-encoder": CrossEncoderModel}[sys.argv[1]]
texts = [f"text number {number} about the red planet and the blue sea " * 3 for number in range(48)]

def score(model):
    return model.score("why is it red", texts)
"""
)

WHILE_READ_ANEW = (
    FORKING
    + """
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex
writer = ColBERTIndex.create(sys.argv[1], ToyEncoder())
writer.upsert([{"id": f"a{n}", "text": f"word {n} fox"} for n in range(200)])
reader = ColBERTIndex.open(sys.argv[1], ToyEncoder(), read_only=True)
numbers = iter(range(10**9))

def child():
    for index in (reader, writer):
        for _ in range(2):
            assert [hit.score for hit in index.search("fox 3", 3)] == expected
        assert index.get(["a3"])[0].text == "word 3 fox" and len(index) == 201
    # The parent goes on writing: a child sees commits that come after the fork.
    last = reader.get(["x"])[0].text
    while reader.get(["x"])[0].text == last:
        time.sleep(0.001)

writer.upsert([{"id": "x", "text": "new"}])
expected = [hit.score for hit in reader.search("fox 3", 3)]
rest = [busy(lambda: reader.search("fox 3", 3))]
rest += [busy(lambda: writer.upsert([{"id": "x", "text": f"new {next(numbers)}"}]))]
for turn in range(int(sys.argv[2])):
    time.sleep(0.003 * (turn % 4))  # at different points of the others' calls
    in_child(child)
[end() for end in rest]
assert len(writer) == 201 and writer.verify().passages == 201
"""
)

WHILE_WRITING = (
    FORKING
    + """
from toy import ToyEncoder
from rerank_integrations import ColBERTIndex, IndexClosedError, IndexLockedError
index = ColBERTIndex.create(sys.argv[1], ToyEncoder())
index.upsert(["stored before"])
begun, go_on = threading.Event(), threading.Event()

def passages():
    yield "stored in the end"
    begun.set()
    go_on.wait()

thread = threading.Thread(target=index.upsert, args=(passages(),))
thread.start()
begun.wait()

def child():
    assert [hit.text for hit in index.search("stored", 3)] == ["stored before"]
    try:
        index.upsert(["refused"])
    except IndexLockedError:
        index.close()
    try:
        index.search("stored")
    except IndexClosedError:
        return
    raise AssertionError("the child's index is still open")

in_child(child)
go_on.set()
thread.join()
assert len(index) == 2 and not index.upsert([])
"""
)

WHILE_SCORING = (
    MODELS
    + """
model = kind(sys.argv[2], device="cpu", dtype="float32")
expected = score(model)

def child():
    assert not any(found.calls_in_flight for found in loaded_models())
    assert score(model) == expected

def reloading():
    model.unload()
    assert loaded_models() == []
    child()

rest = busy(lambda: score(model))
for turn in range(int(sys.argv[3])):
    time.sleep(0.003 * (turn % 7))  # at different points of the others' calls
    in_child(child)
in_child(reloading)
rest()
assert score(model) == expected
"""
)

WHILE_LOADING = (
    MODELS
    + """
model = kind(sys.argv[2], device="cpu", dtype="float32")
expected = score(model)

def reload():
    model.unload()
    score(model)

rest = busy(reload)
for turn in range(int(sys.argv[3])):
    time.sleep(0.02 * turn)
    in_child(lambda: score(model) == expected or sys.exit("another answer"))
rest()
"""
)

TIMED = (
    MODELS
    + """
timed = kind(sys.argv[2], device="cpu", dtype="float32", idle_timeout=0.5)
score(timed)

def child():
    score(timed)
    while loaded_models():
        time.sleep(0.01)

rest = busy(lambda: score(timed))
in_child(child)
rest()
while loaded_models():
    time.sleep(0.01)
in_child(child)
"""
)


def test_a_child_forked_while_others_search_and_commit(tmp_path: Path) -> None:
    run(WHILE_READ_ANEW, str(tmp_path / "index"), "8")


def test_a_child_forked_while_another_thread_writes_reads_and_closes(tmp_path: Path) -> None:
    """The parent holds the lock of writes for as long as the upsert lasts."""
    run(WHILE_WRITING, str(tmp_path / "index"))


# Locks that need no section, for the reason given: none of them can be found taken by a forked child that wants it.
OUTSIDE_OF_SECTIONS = {
    ("core/concurrency/forks.py", "_one_fork"),  # what sections are made of
    ("core/index/reader.py", "_lock"),  # within a transaction, which is a section
    ("core/index/storage/connections.py", "_changed"),  # the same, where forks_held_off() does not stand beside it
    ("core/index/plaid/torch_stages.py", "_lock"),  # the same
    ("core/index/colbert_index.py", "_write_lock"),  # a child is refused before it would wait
}


WHILE_LOCKING_A_FILE = (
    FORKING
    + """
from rerank_integrations.core.concurrency.forks import forks_held_off
from filelock import FileLock

def lock():
    while not stop.is_set():
        with forks_held_off(), FileLock(sys.argv[1]):
            pass

stop = threading.Event()
thread = threading.Thread(target=lock)
thread.start()
for _ in range(50):
    in_child(lambda: None)
stop.set()
thread.join()
"""
)


def test_a_fork_while_a_section_locks_a_file(tmp_path: Path) -> None:
    # The hub client and the kept graphs lock files while a model loads.
    run(WHILE_LOCKING_A_FILE, str(tmp_path / "lock"))


def test_every_lock_is_held_in_a_section_that_a_fork_waits_for() -> None:
    source = Path(rerank_integrations.__file__).parent
    trees = {
        file.relative_to(source).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in (source / "core").rglob("*.py")
    }
    locks = {lock for tree in trees.values() for node in ast.walk(tree) for lock in _locks_made(node)}
    assert {"_lock", "_changed", "loading", "_tokenizer_lock"} <= locks
    held_bare = {
        (file, lock) for file, tree in trees.items() for node in ast.walk(tree) for lock in _held_bare(node, locks)
    }
    assert held_bare <= OUTSIDE_OF_SECTIONS, held_bare - OUTSIDE_OF_SECTIONS


def _locks_made(node: ast.AST) -> list[str]:
    made = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore")
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
        return []
    if _name(node.value.func) not in made:
        return []
    return [_name(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def _held_bare(node: ast.AST, locks: set[str]) -> set[str]:
    """Return the locks that a `with` holds without a section around it."""
    if not isinstance(node, ast.With):
        return set()
    if isinstance(call := node.items[0].context_expr, ast.Call) and _name(call.func) == "forks_held_off":
        return set()
    return {_name(item.context_expr) for item in node.items} & locks


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "cross-encoder"])
def test_a_child_forked_while_others_score(kind: str, checkpoints: dict[str, Path]) -> None:
    run(WHILE_SCORING, kind, str(checkpoints[kind]), "14")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert"])
def test_a_child_forked_while_others_load(kind: str, checkpoints: dict[str, Path]) -> None:
    run(WHILE_LOADING, kind, str(checkpoints[kind]), "5")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross-encoder"])
def test_a_time_out_holds_in_a_child(kind: str, checkpoints: dict[str, Path]) -> None:
    run(TIMED, kind, str(checkpoints[kind]))


@pytest.fixture
def checkpoints(colbert_dir: Path, cross_encoder_dir: Path) -> dict[str, Path]:
    return {"colbert": colbert_dir, "cross-encoder": cross_encoder_dir}


def run(code: str, *arguments: str) -> None:
    # colbert-ai, where a test has imported it, sets this to "true": no tokenizer then survives a fork.
    environment = {**child_env(), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
