"""The typed application runs and uses every component; `make check` has mypy and pyright check its types strictly."""

from __future__ import annotations

import ast
import importlib
import runpy
from pathlib import Path

import pytest

APPS = {
    "rerank_integrations": ("without_framework.py", None),
    "rerank_integrations.langchain": ("with_langchain.py", "langchain"),
    "rerank_integrations.llama_index": ("with_llama_index.py", "llama-index"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    present = {None, *str(metafunc.config.getoption("--frameworks")).split(",")}
    metafunc.parametrize("module", [module for module, (_, framework) in APPS.items() if framework in present])


def _path(module: str) -> Path:
    return Path(__file__).with_name(APPS[module][0])


def test_the_application_uses_every_component(module: str) -> None:
    tree = ast.parse(_path(module).read_text("utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    public = set(importlib.import_module(module).__all__)
    if module == "rerank_integrations":
        # The components; the rest are errors, and what calls return.
        public = {
            name for name in public if name.endswith(("Index", "Model", "Scorer", "Encoder", "Reranker", "Cascade"))
        }
    assert public <= used


@pytest.mark.slow
def test_the_application_runs(module: str, tmp_path: Path) -> None:
    runpy.run_path(str(_path(module)))["main"](tmp_path)
