"""``rerank-integrations import-colbert`` and ``export-colbert``: indexes of colbert-ai's into ours, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rerank_integrations
from rerank_integrations.cli.output import show, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def import_colbert(
    source: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder that colbert-ai or RAGatouille wrote.")
    ],
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="The index to make.")],
    model: Annotated[str, typer.Option(help="The checkpoint it was made with: name or path.")],
    collection: Annotated[
        Path | None,
        typer.Option(help="The indexed passages, .tsv or .json. \\[default: collection.json or .tsv in SOURCE]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing index.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an index of one that colbert-ai made; nothing is encoded again."""
    with rerank_integrations.import_colbert(
        source, path, ColBERTModel(model), collection=collection, overwrite=overwrite
    ) as index:
        stats = index.stats()
    if as_json:
        write_json({"index": str(path), "source": str(source), "passages": stats.passages, "tokens": stats.tokens})
    else:
        told = f"{path}: {stats.passages:,} passages of {stats.tokens:,} tokens imported from {source}"
        show(told)


def export_colbert(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    target: Annotated[Path, typer.Argument(help="The folder to make, for colbert-ai.")],
    as_json: AsJson = False,
) -> None:
    """Write an index as a folder that colbert-ai opens."""
    with ColBERTIndex.open(path, read_only=True) as index:
        made = rerank_integrations.export_colbert(index, target)
        passages = len(index)
    if as_json:
        write_json({"index": str(path), "target": str(made), "passages": passages})
    else:
        show(f"{made}: {passages:,} passages exported from {path}")
