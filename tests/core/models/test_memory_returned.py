"""Resident memory, threads and the end of an interpreter, each measured in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import write_cross_encoder, write_multi_vector

# 35 million numbers in float32 are 140 MB.
LARGE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 5, "num_attention_heads": 12}

RESIDENT = """
import json, sys, threading
from pathlib import Path
from rerank_integrations import ColBERTModel, CrossEncoderModel, loaded_models
model_class = {"colbert": ColBERTModel, "cross-encoder": CrossEncoderModel}[sys.argv[1]]
TEXTS = [f"text {number} about iron in the soil of Mars" for number in range(8)]

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

def score(model):
    return model.score("why is Mars red", TEXTS)

tiny, large = (model_class(path, dtype="float32", backend=sys.argv[4], device="cpu") for path in sys.argv[2:4])
score(tiny)  # so that the libraries are in memory
if sys.argv[4] != "torch":
    score(large)  # converts it
    large.unload()
before = resident()
first = score(large)
loaded = resident()
large.unload()
unloaded = resident()
# Where weights lie in memory decides the last bits of a product on some processors.
assert all(abs(again - once) < 0.05 for again, once in zip(score(large), first, strict=True))
threads = [threading.Thread(target=lambda: [score(large) for _ in range(4)]) for _ in range(4)]
[thread.start() for thread in threads]
large.unload()  # in the midst of calls
[thread.join() for thread in threads]
large.unload()
print(json.dumps([before, loaded, unloaded, resident()]))
assert [found.name for found in loaded_models()] == [tiny.name]
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc")
@pytest.mark.usefixtures("graph_cache")
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("cross-encoder", "torch"),
        ("cross-encoder", "onnx"),
        ("colbert", "openvino"),
    ],
)
def test_memory_goes_back_to_the_operating_system(
    kind: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = write_multi_vector if kind == "colbert" else write_cross_encoder
    tiny, large = write(tmp_path / "tiny"), write(tmp_path / "large", sizes=LARGE)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(1 << 20))  # docs/how-to/memory.md says what glibc keeps without it
    before, loaded, unloaded, at_last = json.loads(run(RESIDENT, kind, str(tiny), str(large), backend))
    weights = 35e6 * 4
    assert loaded - before > 0.9 * weights
    assert loaded - unloaded > 0.8 * (loaded - before)
    # Four threads have computed by then, whose buffers stay with them.
    assert loaded - at_last > 0.7 * (loaded - before)


THREADS = """
import sys, threading
from rerank_integrations import ColBERTModel, loaded_models
def watching():
    return [thread for thread in threading.enumerate() if thread.name == "rerank-integrations-idle"]
plain = ColBERTModel(sys.argv[1], device="cpu")
plain.score("a query", ["a text"])
assert not watching()
timed = ColBERTModel(sys.argv[1], device="cpu", idle_timeout=3600)
timed.score("a query", ["a text"])
assert len(watching()) == 1
assert "torch" in sys.modules and loaded_models()[0].users == 2
"""


@pytest.mark.slow
def test_a_thread_runs_only_where_a_time_out_is_asked_for_and_lets_the_interpreter_end(colbert_dir: Path) -> None:
    assert run(THREADS, str(colbert_dir)) == ""


def test_constructing_with_a_time_out_and_asking_what_is_loaded_load_nothing() -> None:
    code = """
import sys, threading
import rerank_integrations as ri
models = [ri.ColBERTModel("x", idle_timeout=1), ri.CrossEncoderModel("y", idle_timeout=0)]
assert ri.loaded_models() == [] and ri.unload_all() is None
models.pop()
assert threading.active_count() == 1 and "torch" not in sys.modules
"""
    assert run(code) == ""


ENDS = """
import sys
from rerank_integrations import CrossEncoderModel
for _ in range(3):
    CrossEncoderModel(sys.argv[1], device="cpu", idle_timeout=0).score("a query", ["a text"])
"""


@pytest.mark.slow
def test_the_interpreter_ends_well_while_models_are_being_dropped(cross_encoder_dir: Path) -> None:
    assert run(ENDS, str(cross_encoder_dir)) == ""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()
