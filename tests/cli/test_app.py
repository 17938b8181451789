"""Common options of all commands, help and the report of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli
from typer.main import get_command

import rerank_integrations
from rerank_integrations import IndexFormatError
from rerank_integrations.cli import main
from rerank_integrations.cli.app import app

COMMANDS = {
    "demo",
    "index",
    "search",
    "rerank",
    "explain",
    "info",
    "verify",
    "evaluate",
    "report",
    "compare",
    "tune",
    "train",
    "optimize",
    "serve",
    "mcp",
    "import-colbert",
    "export-colbert",
}


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"{rerank_integrations.__version__}\n")


def test_the_commands_are_these() -> None:
    assert set(get_command(app).commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    assert f"rerank-integrations {command}" in done.out
    assert command in cli("--help").out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_argument_and_option_is_explained_by_a_sentence(command: str) -> None:
    described = get_command(app).commands[command]  # type: ignore[attr-defined]
    texts = {"": described.help, **{parameter.name: parameter.help for parameter in described.params}}
    for name, text in texts.items():
        sentence = (text or "").partition(" \\[default:")[0]
        assert sentence[:1].isupper(), (name, text)
        assert sentence.endswith("."), (name, text)


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom rerank_integrations.cli import main\n"
        "try: main(['--help'])\nfinally: sys.stderr.write(str('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "False"
    assert "search" in done.stdout


@pytest.mark.parametrize("arguments", [("nonsense",), ("search",), ("info", "a", "b"), ("--nonsense",)])
def test_wrong_usage_exits_with_two(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage:" in done.err


def test_debug_shows_where_an_error_comes_from(tmp_path: Path, cli: Cli) -> None:
    with pytest.raises(IndexFormatError):
        main(["--debug", "info", str(tmp_path)])
