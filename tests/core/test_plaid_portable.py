"""Another processor finds the same: the loops compiled for one without vectors of 512 bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rows import RowEncoder, numbered

from rerank_integrations import ColBERTIndex

COUNT = 4200
QUERIES = [str(number) for number in range(0, COUNT, 600)]
ASK = """
import json, sys
from rows import RowEncoder
from rerank_integrations import ColBERTIndex
with ColBERTIndex.open(sys.argv[1], RowEncoder(), read_only=True) as index:
    asked = [index.search(query, 10, **effort) for query in json.loads(sys.argv[2]) for effort in ({}, {"exact": True})]
print(json.dumps([[[hit.id, hit.score] for hit in hits] for hits in asked]))
"""


def answers(path: Path, cache: Path, **settings: str) -> Any:
    # In a process of its own, as numba reads its settings once.
    folders = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "NUMBA_CACHE_DIR": str(cache), **settings}
    command = [sys.executable, "-c", ASK, str(path), json.dumps(QUERIES)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_plain_processor_finds_the_same(tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "index", RowEncoder()) as index:
        index.upsert(numbered(range(COUNT)))
        assert index.stats().kind == "plaid"
    here = answers(tmp_path / "index", tmp_path / "here")
    plain = answers(tmp_path / "index", tmp_path / "plain", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    for ours, theirs in zip(here, plain, strict=True):
        assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
