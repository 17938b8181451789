"""Fresh interpreters, some of them without a framework."""

from __future__ import annotations

import subprocess
import sys

MODULES = {"langchain": "rerank_integrations.langchain", "llama-index": "rerank_integrations.llama_index"}
PACKAGES = {"langchain": "langchain_core", "llama-index": "llama_index"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without(package: str) -> str:
    """Return code that makes importing `package` fail as if it were not installed."""
    return f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
