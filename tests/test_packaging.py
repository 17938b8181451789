"""The package as a whole: the cost of its import, its version and its size."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import rerank_integrations

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rerank_integrations"
HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "fastapi",
    "langchain_core",
    "llama_index",
    "pytest",
    "scipy",
    "sklearn",
    "numba",
    "faiss",
    "bs4",
    "mammoth",
    "pypdf",
    "semantic_text_splitter",
    "opentelemetry",
    "openinference",
)
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize(
    "module",
    [
        "rerank_integrations",
        "rerank_integrations.cli",
        "rerank_integrations.evaluation",
        "rerank_integrations.files",
        "rerank_integrations.telemetry",
        "rerank_integrations.testing",
        "rerank_integrations.training",
        # Where its settings' library is missing, importing it is an error: `make neither` checks that.
        *(["rerank_integrations.server"] if importlib.util.find_spec("pydantic_settings") else []),
        *(["rerank_integrations.mcp"] if importlib.util.find_spec("mcp") else []),
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    # The protocol's own package imports OpenTelemetry's interface.
    heavy = set(HEAVY) - {"opentelemetry"} if module == "rerank_integrations.mcp" else set(HEAVY)
    code = f"import {module}, sys; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_version_is_that_of_pyproject() -> None:
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    assert f'version = "{rerank_integrations.__version__}"' in lines


def test_version_stands_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert rerank_integrations.__version__ in changelog


# The catalog has the schema and every query on one page, the index every method with its documentation.
LONGEST = {"core/index/storage/catalog.py": 950, "core/index/colbert_index.py": 950}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST.get(path.relative_to(SOURCE).as_posix(), 700)
    long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (length := _body_length(node)) > 50
    ]
    assert long == []


def _body_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function from its signature to its end, without its docstring."""
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length
