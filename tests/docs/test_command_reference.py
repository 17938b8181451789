"""The reference has every command of the command line, with an example."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from guides import DOCS, read_blocks
from typer.main import get_command

from rerank_integrations.cli.app import app

PAGE = DOCS / "reference" / "cli.md"
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_has_an_example() -> None:
    examples = "".join(block.code for block in read_blocks(PAGE) if block.language == "sh")
    assert sorted(set(re.findall(r"^rerank-integrations ([\w-]+)", examples, re.MULTILINE))) == COMMANDS


def test_every_command_has_an_entry_when_the_site_is_built() -> None:
    entries = load_hooks().on_page_markdown(PAGE.read_text("utf-8"))
    assert sorted(re.findall(r"^## `rerank-integrations ([\w-]+)`$", entries, re.MULTILINE)) == COMMANDS


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks
