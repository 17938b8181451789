"""Entry point of the command line: the commands, their common options and the report of errors."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, cast

import typer
import typer.main

import rerank_integrations
from rerank_integrations.cli.colbert_ai import export_colbert, import_colbert
from rerank_integrations.cli.compare import compare
from rerank_integrations.cli.demo import demo
from rerank_integrations.cli.evaluate import evaluate, report
from rerank_integrations.cli.explain import explain
from rerank_integrations.cli.index import index
from rerank_integrations.cli.info import info, verify
from rerank_integrations.cli.mcp import mcp
from rerank_integrations.cli.optimize import optimize
from rerank_integrations.cli.output import (
    log_to_stderr,
    replace_unencodable_characters,
    show,
    show_on_stderr,
    show_traceback,
)
from rerank_integrations.cli.search import rerank, search
from rerank_integrations.cli.serve import serve
from rerank_integrations.cli.train import train
from rerank_integrations.cli.tune import tune
from rerank_integrations.errors import RerankError


class _Context(Protocol):
    command_path: str

    def get_usage(self) -> str: ...


class _UsageError(Protocol):
    """The parts of click's `UsageError` that are used here."""

    ctx: _Context | None
    exit_code: int

    def format_message(self) -> str: ...


# Some versions of typer have a copy of click, others import click; both export a subclass of the error.
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)
_LOGGER = logging.getLogger("rerank_integrations")

app: typer.Typer = typer.Typer(
    name="rerank-integrations",
    help="ColBERT retrieval and reranking from the command line.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_COMMANDS = (
    demo,
    index,
    search,
    rerank,
    explain,
    info,
    verify,
    evaluate,
    report,
    compare,
    train,
    tune,
    optimize,
    serve,
    mcp,
    import_colbert,
    export_colbert,
)
for _command in _COMMANDS:
    app.command()(_command)


def _show_version(requested: bool) -> None:
    if requested:
        show(rerank_integrations.__version__)
        raise typer.Exit


@app.callback()
def _common_options(
    debug: Annotated[bool, typer.Option("--debug", help="Log details, and show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    log_to_stderr()
    _LOGGER.setLevel(logging.DEBUG if debug else logging.WARNING)


@functools.cache
def _click_command() -> Callable[..., object]:
    # Making the options of every command takes longer than most of the calls that a process may make after its first.
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Parameters
    ----------
    arguments
        The arguments after the program's name; ``None`` takes those of the process.

    Raises
    ------
    SystemExit
        0 for success, 1 for an error (one line on stderr), 2 for wrong usage, 3 if `index` could not read some files.
    """
    command_line = sys.argv[1:] if arguments is None else list(arguments)
    replace_unencodable_characters()
    try:
        # `evaluate` records obj as its command.
        code = _click_command()(
            args=command_line, prog_name="rerank-integrations", obj=command_line, standalone_mode=False
        )
    except _USAGE_ERROR as error:
        code = _show_usage_error(cast(_UsageError, error))
    except typer.Abort:
        show_on_stderr("Aborted.")
        code = 1
    except Exception as error:
        if _LOGGER.isEnabledFor(logging.DEBUG) or not isinstance(error, RerankError | OSError):
            # The interpreter would write the message without replacing its control characters.
            sys.excepthook = show_traceback
            raise
        show_on_stderr(f"error: {error}")
        code = 1
    raise SystemExit(code or 0) from None


def _show_usage_error(error: _UsageError) -> int:
    # An error without a message stands for a call without arguments, which has shown the help.
    if message := error.format_message():
        if error.ctx is not None:
            show_on_stderr(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.")
        show_on_stderr(f"error: {message}")
    return error.exit_code
