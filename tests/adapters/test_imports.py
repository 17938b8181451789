"""What importing and constructing needs and loads; each case in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations import ColBERTIndex

MODULES = {"langchain": "rerank_integrations.langchain", "llama-index": "rerank_integrations.llama_index"}
PACKAGES = {"langchain": "langchain_core", "llama-index": "llama_index"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without(package: str) -> str:
    """Code that makes importing `package` fail as it does where it is not installed."""
    return f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("extra", MODULES)
def test_without_its_framework_an_adapter_names_the_command(extra: str) -> None:
    code = f"""
from rerank_integrations import MissingExtraError
try:
    import {MODULES[extra]}
except MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    message = run(without(PACKAGES[extra]) + code)
    assert message == f"{MODULES[extra]} needs an extra: pip install 'rerank-integrations[{extra}]'"


def test_without_any_framework_the_core_works(index: ColBERTIndex) -> None:
    code = f"""
from rerank_integrations import ColBERTIndex, rerank
index = ColBERTIndex.open({str(index.path)!r}, read_only=True)
print(len(rerank("why is Mars red", index.search("why is Mars red", 5), index.model, top_n=2)))
"""
    assert run("".join(map(without, PACKAGES.values())) + code) == "2"


def test_an_adapter_works_without_the_other_framework(
    harness: Any, request: pytest.FixtureRequest, index: ColBERTIndex
) -> None:
    extra = harness.extra
    others = "".join(without(package) for name, package in PACKAGES.items() if name != extra)
    code = f"""
import {MODULES[extra]} as adapter
retriever = adapter.ColBERTRetriever(index={str(index.path)!r})
print(len(retriever.{"invoke" if extra == "langchain" else "retrieve"}("why is Mars red")))
"""
    assert run(others + code) == "10"


def test_importing_and_constructing_load_no_weights(
    harness: Any, index: ColBERTIndex, colbert_dir: Path, cross_encoder_dir: Path
) -> None:
    code = f"""
import sys
import {MODULES[harness.extra]} as adapter
adapter.ColBERTRetriever(index={str(index.path)!r})
adapter.ColBERTRerank(model={str(colbert_dir)!r}, index={str(index.path)!r})
adapter.CrossEncoderRerank(model={str(cross_encoder_dir)!r})
print("torch" in sys.modules, "sentence_transformers" in sys.modules)
"""
    assert run(code) == "False False"


def test_a_broken_framework_shows_its_own_error() -> None:
    code = """
import sys, types
broken = types.ModuleType("langchain_core")
broken.__path__ = []
sys.modules["langchain_core"] = broken
try:
    import rerank_integrations.langchain
except ImportError as error:
    print(type(error).__name__, error.name)
"""
    kind, name = run(code).split()
    assert kind == "ModuleNotFoundError"
    assert name.startswith("langchain_core.")
