"""Messages of an adapter's import where its framework is absent; every case runs in a fresh interpreter."""

from __future__ import annotations

import pytest
from interpreter import MODULES, PACKAGES, run, without


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
