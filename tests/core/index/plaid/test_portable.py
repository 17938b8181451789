"""Kernels compiled for a processor without 512-bit vectors give the same hits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import row_encoder
from row_encoder import RowEncoder, numbered

from rerank_integrations import ColBERTIndex

COUNT = 4200
QUERIES = [str(number) for number in range(0, COUNT, 600)]
ASK = """
import json, sys
from test_portable import answers
print(json.dumps(answers(sys.argv[1])))
"""
PLAIN = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}


def answers(path: str) -> list[list[tuple[str, float]]]:
    with ColBERTIndex.open(path, RowEncoder(), read_only=True) as index:
        asked = [index.search(query, 10, exact=exact) for query in QUERIES for exact in (False, True)]
    return [[(hit.id, hit.score) for hit in hits] for hits in asked]


def plain_answers(path: str, cache: Path) -> Any:
    # In a process of its own, as numba reads its settings once.
    here = Path(__file__).parent
    folders = [str(here), str(Path(row_encoder.__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "NUMBA_CACHE_DIR": str(cache), **PLAIN}
    command = [sys.executable, "-c", ASK, path]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_plain_processor_finds_the_same(tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "index", RowEncoder()) as index:
        index.upsert(numbered(range(COUNT)))
        assert index.stats().kind == "plaid"
    here = answers(str(tmp_path / "index"))
    plain = plain_answers(str(tmp_path / "index"), tmp_path / "plain")
    for ours, theirs in zip(here, plain, strict=True):
        assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
