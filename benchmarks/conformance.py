"""The suites of rerank_integrations.testing over our components and those of others, as tables in Markdown.

    python benchmarks/conformance.py [--quick] [--write]

Every component gets tiny models with random weights, because no check asks which passage is the best. What cannot be
imported here is named with the reason; ``benchmarks/conformance_parts/incumbents.txt`` lists what to install beside
``.[all,evaluate]``. ``--write`` writes docs/reference/conformance.md. ``--quick`` takes two components per table.
"""

from __future__ import annotations

import os

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import contextlib
import importlib
import logging
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from rerank_integrations.testing import CheckResult, run_checks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "conformance.md"
PACKAGES = (
    "langchain-core",
    "langchain-classic",
    "langchain-community",
    "llama-index-core",
    "llama-index-postprocessor-colbert-rerank",
    "llama-index-postprocessor-flashrank-rerank",
    "llama-index-postprocessor-flag-embedding-reranker",
    "llama-index-retrievers-bm25",
    "flashrank",
    "rank-bm25",
    "rerankers",
    "sentence-transformers",
    "torch",
)
GROUPS = {
    "LangChain: rerankers": ("langchain", "RERANKERS"),
    "LangChain: retrievers": ("langchain", "RETRIEVERS"),
    "LlamaIndex: rerankers": ("llama_index", "RERANKERS"),
    "LlamaIndex: retrievers": ("llama_index", "RETRIEVERS"),
}
WORDS = {"passed": "yes", "failed": "**no**", "skipped": "–"}
# What has no component that a suite could be given, whatever is installed.
ELSEWHERE = """\
- **PyLate** has no component of either framework. Its release 1.6.0 requires sentence-transformers 5.3.0, and ours
  requires 6, so that the two do not install together.
- **RAGatouille** 0.0.9.post2 has a LangChain retriever and a compressor, and cannot be imported with LangChain 1: it
  imports `langchain.retrievers`, which LangChain 1 does not have."""


class Column(NamedTuple):
    """A component of a table: what it is, and its results, or the reason why it was not run."""

    label: str
    ours: bool
    results: list[CheckResult]
    reason: str = ""


def measure(kind: Any, models: Any) -> Column:
    """Run every check of a suite."""
    print(f".. {kind.__module__}: {kind.label}", file=sys.stderr, flush=True)
    try:
        suite = kind(models)
    except Exception as error:
        return Column(kind.label, False, [], f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Column(kind.label, kind.__name__.startswith("Our"), run_checks(suite))


def table(title: str, columns: list[Column]) -> str:
    """Return a table with a row per check, and below it why each check failed."""
    ran = [column for column in columns if column.results]
    lines = [f"## {title}", ""]
    lines += [f"- {chr(ord('A') + number)}: {column.label}" for number, column in enumerate(ran)]
    lines += [f"- not run: {column.label}, because of {column.reason}" for column in columns if not column.results]
    names = [result.name for result in ran[0].results]
    lines += ["", f"| check | {' | '.join(chr(ord('A') + number) for number in range(len(ran)))} |"]
    lines.append("|---" * (len(ran) + 1) + "|")
    by_column = [{result.name: result for result in column.results} for column in ran]
    for name in names:
        cells = [WORDS[results[name].outcome] for results in by_column]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    passed = [sum(result.outcome == "passed" for result in column.results) for column in ran]
    failed = [sum(result.outcome == "failed" for result in column.results) for column in ran]
    lines.append(f"| passed / failed | {' | '.join(f'{p} / {f}' for p, f in zip(passed, failed, strict=True))} |")
    reasons = [
        f"- {chr(ord('A') + number)}, {result.name.replace('_', ' ')}: {escaped(result.message)}"
        for number, column in enumerate(ran)
        for result in column.results
        if result.outcome == "failed"
    ]
    return "\n".join([*lines, "", *(reasons or ["No check failed."]), ""])


def escaped(message: str) -> str:
    """Return a message that Markdown shows as it is."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>#|" else character for character in message)


def page(sections: list[str], versions: str) -> str:
    """Return the whole of docs/reference/conformance.md."""
    return f"""# Conformance

Written by `python benchmarks/conformance.py --write`, which ran every check of
[`rerank_integrations.testing`](api/testing.md) on each component, with: {versions}.

`yes`: the check passed. **no**: it failed, for the reason below the table. `–`: it does not apply, or the component
cannot be made to do what the check needs. The [reference](api/testing.md) says what each check demands and why. Some
demands are the frameworks' own contracts. Others are what applications need and no framework promises: new objects,
equal ids once, scores in LangChain's metadata, serialisation of LangChain's components, refused arguments, events of
LangChain's compressors. The models are tiny and have random weights: no check asks which passage is the best.

{chr(10).join(sections)}
## Not in the tables

{ELSEWHERE}
"""


def installed() -> str:
    """Return the versions of what was measured."""
    known = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            known.append(f"{name} {version(name)}")
    return ", ".join([*known, f"Python {sys.version.split()[0]}"])


def measure_group(title: str, quick: bool) -> list[Column]:
    """Return the columns of a table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    framework, kind = GROUPS[title]
    module = importlib.import_module(f"conformance_parts.{framework}")
    models = importlib.import_module("conformance_parts.models")
    suites = [suite for suite in getattr(module, kind) if not quick or suite in module.QUICK]
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as work:
        checkpoints = models.Models(Path(work))
        return [measure(suite, checkpoints) for suite in suites]


def main() -> None:
    """Measure every component, print the tables, and with ``--write`` write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--write is for all of it; --quick measures a part")
    # Each table in a process of its own, so that no component's threads or patches reach another framework's.
    with ProcessPoolExecutor(len(GROUPS), mp_context=get_context("spawn")) as pool:
        groups = dict(zip(GROUPS, pool.map(measure_group, GROUPS, [arguments.quick] * len(GROUPS)), strict=True))
    sections = [table(title, columns) for title, columns in groups.items()]
    print("\n".join(sections))
    if arguments.write:
        PAGE.write_text(page(sections, installed()), encoding="utf-8")
    print(installed(), file=sys.stderr)
    columns = [column for group in groups.values() for column in group]
    figures = []
    for who in ("ours", "others"):
        results = [result for column in columns if column.ours == (who == "ours") for result in column.results]
        counts = Counter(result.outcome for result in results)
        figures += [f"{who}_passed={counts['passed']}", f"{who}_failed={counts['failed']}"]
    print(" ".join([*figures, f"not_run={sum(not column.results for column in columns)}"]))


if __name__ == "__main__":
    main()
