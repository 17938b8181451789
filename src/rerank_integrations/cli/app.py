"""The entry point: the commands, the options that all of them share, and how errors are told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

import rerank_integrations
from rerank_integrations.cli.colbert_ai import export_colbert, import_colbert
from rerank_integrations.cli.compare import compare
from rerank_integrations.cli.demo import demo
from rerank_integrations.cli.evaluate import evaluate, report
from rerank_integrations.cli.explain import explain
from rerank_integrations.cli.index import index
from rerank_integrations.cli.info import info, verify
from rerank_integrations.cli.optimize import optimize
from rerank_integrations.cli.output import log_to_stderr, replace_what_streams_cannot_write, show, show_traceback, tell
from rerank_integrations.cli.search import rerank, search
from rerank_integrations.cli.train import train
from rerank_integrations.cli.tune import tune
from rerank_integrations.errors import RerankError

# By way of a class that typer exports: by version it has a copy of click of its own, or takes click's.
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)
_LOGGER = logging.getLogger("rerank_integrations")

app = typer.Typer(
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
    import_colbert,
    export_colbert,
)
for command in _COMMANDS:
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        show(rerank_integrations.__version__)
        raise typer.Exit


@app.callback()
def _shared(
    debug: Annotated[bool, typer.Option("--debug", help="Log details; show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    log_to_stderr()
    _LOGGER.setLevel(logging.DEBUG if debug else logging.WARNING)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Parameters
    ----------
    arguments
        What follows the program's name; ``None`` takes the process's own.

    Raises
    ------
    SystemExit
        0 when the command worked, 1 after an error (told in one line on stderr), 2 for wrong usage.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    replace_what_streams_cannot_write()
    try:
        # obj: what `evaluate` records as its command.
        code = app(args=given, prog_name="rerank-integrations", obj=given, standalone_mode=False)
    except _USAGE_ERROR as error:
        code = _tell_usage(error)
    except typer.Abort:
        tell("Aborted.")
        code = 1
    except Exception as error:
        if _LOGGER.isEnabledFor(logging.DEBUG) or not isinstance(error, RerankError | OSError):
            # The interpreter would write the message as it is.
            sys.excepthook = show_traceback
            raise
        tell(f"error: {error}")
        code = 1
    raise SystemExit(code or 0) from None


def _tell_usage(error: Exception) -> int:
    usage = cast(Any, error)
    # Without a message nothing was asked for, and the help has been shown.
    if message := usage.format_message():
        if usage.ctx is not None:
            tell(f"{usage.ctx.get_usage()}\nTry '{usage.ctx.command_path} --help' for help.")
        tell(f"error: {message}")
    return int(usage.exit_code)
