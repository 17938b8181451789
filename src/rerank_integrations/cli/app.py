"""The entry point: the commands, the options that all of them share, and how errors are told."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

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
from rerank_integrations.cli.output import error_console
from rerank_integrations.cli.search import rerank, search
from rerank_integrations.cli.train import train
from rerank_integrations.cli.tune import tune
from rerank_integrations.errors import RerankError

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
        typer.echo(rerank_integrations.__version__)
        raise typer.Exit


@app.callback()
def _shared(
    debug: Annotated[bool, typer.Option("--debug", help="Log details; show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # force: the stream must be this call's standard error, also where another call in the process set it up
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: str(message)
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
    try:
        # obj: what `evaluate` records as its command.
        app(args=given, prog_name="rerank-integrations", obj=given)
    except (RerankError, OSError) as error:
        if _LOGGER.isEnabledFor(logging.DEBUG):
            raise
        error_console().print(f"error: {error}", markup=False)
        raise SystemExit(1) from None
