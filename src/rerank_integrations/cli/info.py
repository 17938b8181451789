"""``rerank-integrations info`` and ``verify``: what an index holds, and whether it is sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rerank_integrations.cli.output import show, write_json, write_table
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.errors import IndexFormatError

Index = Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]


def info(path: Index, as_json: AsJson = False) -> None:
    """Show what an index holds: passages, size, model."""
    with ColBERTIndex.open(path, read_only=True) as index:
        stats = index.stats().to_dict()
    if as_json:
        write_json({"index": str(path), **stats})
    else:
        write_table(stats, title=str(path))


def verify(path: Index, as_json: AsJson = False) -> None:
    """Read all of an index and check that it is sound; exit code 1 if it is not."""
    try:
        with ColBERTIndex.open(path, read_only=True) as index:
            report = asdict(index.verify())
    except IndexFormatError as error:
        if not as_json:
            raise
        write_json({"index": str(path), "sound": False, "problem": str(error)})
        raise typer.Exit(1) from error
    if as_json:
        write_json({"index": str(path), "sound": True, **report})
    else:
        counts = ", ".join(f"{value:,} {name}" for name, value in report.items())
        show(f"{path}: sound ({counts})")
