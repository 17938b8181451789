"""Each example runs as a user would run it, and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS: dict[str, set[str]] = {
    "cascade_rerank.py": {"langchain", "llama-index"},
    "explain.py": set(),
    "langchain_rag.py": {"langchain"},
    "llama_index_query_engine.py": {"llama-index"},
    "shared_index.py": {"langchain", "llama-index"},
}


# Examples that take a question as an argument.
ASKED = ("langchain_rag.py", "llama_index_query_engine.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "example" in metafunc.fixturenames:
        present = set(metafunc.config.getoption("--frameworks").split(","))
        metafunc.parametrize("example", [name for name, needs in NEEDS.items() if needs <= present])
    if "asked" in metafunc.fixturenames:
        present = set(metafunc.config.getoption("--frameworks").split(","))
        metafunc.parametrize("asked", [name for name in ASKED if NEEDS[name] <= present])


def run(example: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def scores(lines: list[str]) -> list[float]:
    return [
        float(match[1]) for line in lines if (match := re.match(r"\s*(?:LangChain|LlamaIndex)?\s*(\d+\.\d+) ", line))
    ]


def test_every_example_is_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(NEEDS)


def test_is_short_and_says_where_a_real_model_goes(example: str) -> None:
    lines = (EXAMPLES / example).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    # These two use no language model.
    without = ("cascade_rerank.py", "explain.py")
    assert example in without or sum("real" in line and ("LLM" in line or "llm" in line) for line in lines) == 1


@pytest.mark.slow
def test_prints_what_it_promises(example: str, tmp_path: Path) -> None:
    if example == "explain.py":
        _check_explained(tmp_path / "page.html")
        return
    lines = run(example)
    if example == "cascade_rerank.py":
        _check_cascade(lines)
        return
    if example == "shared_index.py":
        _check_shared(lines)
        return
    found = scores(lines)
    assert len(found) == 2
    assert found == sorted(found, reverse=True)
    assert "[zipfile]" in lines[0]
    answer = "\n".join(lines[2:])
    if example == "langchain_rag.py":
        assert answer.startswith("According to [zipfile] ZipFile.read returns the bytes of one member")
    else:
        assert "ZipFile.read returns one member" in answer
        assert "how do I read one file of an archive?" in answer
        # Kept for the caller, not for the language model.
        assert "retrieval_score" not in answer


@pytest.mark.slow
def test_takes_a_question(asked: str) -> None:
    lines = run(asked, "how much room is left on my disk?")
    assert "[shutil]" in lines[0]
    assert "shutil.disk_usage" in "\n".join(lines[2:])


def _check_cascade(lines: list[str]) -> None:
    assert lines[0] == "LangChain"
    assert lines[3] == "LlamaIndex"
    # Both frameworks print the same scores, to the last digit.
    assert lines[1:3] == lines[4:6]
    assert re.match(r"  \[zipfile\] was 7 of 7: ColBERTRerank \d+\.\d{3}, CrossEncoderRerank \d\.\d{3}$", lines[1])
    assert lines[-1] == "  [difflib] is still first; ColBERTRerank: the time budget of 0.001 s ran out"


def _check_shared(lines: list[str]) -> None:
    after = lines.index("After the writer added a passage")
    for part in (lines[1:after], lines[after + 1 :]):
        langchain, llama_index = (
            [line.split()[1:] for line in part if name in line] for name in ("LangChain", "LlamaIndex")
        )
        assert len(langchain) == 2
        assert langchain == llama_index
    assert "tarfile" not in "".join(lines[:after])
    assert "tarfile" in lines[after + 1]


def _check_explained(page: Path) -> None:
    lines = run("explain.py", "how much space is left on my disk?", str(page))
    assert re.match(r"\[shutil\] \d+\.\d{4}$", lines[0])
    assert any(re.match(r"  disk: (disk|disk_usage).* \(0\.\d\d\)", line) for line in lines)
    assert any("MaxSim" in line for line in lines)
    assert lines[-1] == f"The heat map is in {page}"
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert "disk" in html
