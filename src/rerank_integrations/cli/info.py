"""``rerank-integrations info`` and ``verify``: show the contents of an index, and check it for damage."""

from __future__ import annotations

from dataclasses import asdict

import typer

from rerank_integrations.cli.options import AsJson, IndexPath
from rerank_integrations.cli.output import show, write_json, write_table
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.errors import IndexFormatError


def info(path: IndexPath, as_json: AsJson = False) -> None:
    """Show the number of passages, the size and the model of an index."""
    with ColBERTIndex.open(path, read_only=True) as index:
        stats = index.stats().to_dict()
    if as_json:
        write_json({"index": str(path), **stats})
    else:
        write_table(stats, title=str(path))


def verify(path: IndexPath, as_json: AsJson = False) -> None:
    """Read a whole index and check it for damage; the exit code is 1 if it is damaged."""
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
