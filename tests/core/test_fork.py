"""A child of a fork can use every model, whatever its parent's other threads were doing at that moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX systems fork")

COMMON = """
import faulthandler, os, sys, threading, time
from rerank_integrations import ColBERTModel, CrossEncoderModel, loaded_models
kind = {"colbert": ColBERTModel, "cross-encoder": CrossEncoderModel}[sys.argv[1]]
texts = [f"text number {number} about the red planet and the blue sea " * 3 for number in range(48)]

def score(model):
    return model.score("why is it red", texts)

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

WHILE_SCORING = (
    COMMON
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
    COMMON
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
    COMMON
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "cross-encoder"])
def test_a_child_forked_while_others_score(kind: str, checkpoints: dict[str, Path]) -> None:
    run(WHILE_SCORING, kind, str(checkpoints[kind]), "14")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "cross-encoder"])
def test_a_child_forked_while_others_load(kind: str, checkpoints: dict[str, Path]) -> None:
    run(WHILE_LOADING, kind, str(checkpoints[kind]), "5")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "cross-encoder"])
def test_a_time_out_holds_in_a_child(kind: str, checkpoints: dict[str, Path]) -> None:
    run(TIMED, kind, str(checkpoints[kind]))


@pytest.fixture
def checkpoints(colbert_dir: Path, cross_encoder_dir: Path) -> dict[str, Path]:
    return {"colbert": colbert_dir, "cross-encoder": cross_encoder_dir}


def run(code: str, *arguments: str) -> None:
    # colbert-ai, where a test has imported it, sets this to "true": no tokenizer then survives a fork.
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
