"""A folder with an index is moved, and a new process gives the answers that were given before."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations import ColBERTModel


@pytest.mark.slow
def test_a_new_process_answers_the_same_from_a_moved_folder(
    harness: Any, colbert: ColBERTModel, tmp_path: Path
) -> None:
    components = importlib.import_module(f"moved_{harness.extra.replace('-', '_')}")
    first, moved = tmp_path / "first", tmp_path / "elsewhere" / "under another name"
    first.mkdir()
    before = json.loads(json.dumps(components.write(first, colbert)))
    moved.parent.mkdir()
    first.rename(moved)
    # An index names no folder of a checkpoint that it may load by itself.
    command = [sys.executable, components.__file__, str(moved), json.dumps(colbert.options())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == before
    # No component has written the folder again, and none has answered with nothing.
    assert not first.exists()
    assert all(hits for name, by_query in before.items() if isinstance(by_query, dict) for hits in by_query.values())
    assert "A new text." in str(before)
    assert "'d4'" not in str(before)
