"""The reference has every public name and every command."""

from __future__ import annotations

import importlib
import importlib.util
import re
from types import ModuleType

import pytest
from guides import DOCS, read_blocks
from typer.main import get_command

from rerank_integrations.cli.app import app

PUBLIC = [
    "rerank_integrations",
    "rerank_integrations.langchain",
    "rerank_integrations.llama_index",
    "rerank_integrations.evaluation",
    "rerank_integrations.training",
]
DOCUMENTED = [
    name
    for page in sorted((DOCS / "reference" / "api").glob("*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE)
]
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_an_entry(module: str) -> None:
    names = importlib.import_module(module).__all__
    documented = {name.rpartition(".")[2] for name in DOCUMENTED if name.rpartition(".")[0] == module}
    assert documented == set(names)


def test_no_name_has_two_entries() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED))


def test_every_command_has_an_example_and_an_entry() -> None:
    page = DOCS / "reference" / "cli.md"
    examples = "".join(block.code for block in read_blocks(page) if block.language == "sh")
    assert sorted(set(re.findall(r"^rerank-integrations ([\w-]+)", examples, re.MULTILINE))) == COMMANDS
    hooks = load_hooks()
    entries = hooks.on_page_markdown(page.read_text("utf-8"))
    assert sorted(re.findall(r"^## `rerank-integrations ([\w-]+)`$", entries, re.MULTILINE)) == COMMANDS


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks
