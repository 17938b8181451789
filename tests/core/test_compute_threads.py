"""The threads of the package's own leave torch's number of threads to everybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_AT_ONCE = """
import sys, threading
import numpy as np
import torch
from rerank_integrations import ColBERTModel
torch.set_num_threads(3)
model = ColBERTModel(sys.argv[1], device="cpu")
start, found = threading.Barrier(8), []
def ask():
    start.wait()
    found.append(model.encode_queries(["a short query"])[0])
callers = [threading.Thread(target=ask) for _ in range(8)]
[caller.start() for caller in callers]
[caller.join() for caller in callers]
counts = [torch.get_num_threads()]
late = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
late.start()
late.join()
assert counts == [3, 3], counts
assert len(found) == 8 and all(np.array_equal(one, found[0]) for one in found)
"""

FORKED = """
import os, sys
import numpy as np
from rerank_integrations import ColBERTModel
model = ColBERTModel(sys.argv[1], device="cpu")
before = model.encode_queries(["a short query"])[0]
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(model.encode_queries(["a short query"])[0], before) else 3)
assert os.waitpid(child, 0)[1] == 0
"""


def run(code: str, checkpoint: Path) -> None:
    command = [sys.executable, "-c", code, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_eight_first_queries_at_once(colbert_dir: Path) -> None:
    run(FIRST_AT_ONCE, colbert_dir)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_encodes_short_queries(colbert_dir: Path) -> None:
    run(FORKED, colbert_dir)
