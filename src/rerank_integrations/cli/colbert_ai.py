"""``rerank-integrations import-colbert`` and ``export-colbert``: convert indexes from and to colbert-ai's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rerank_integrations
from rerank_integrations.cli.options import AsJson, IndexPath
from rerank_integrations.cli.output import show, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel


def import_colbert(
    source: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Index folder that colbert-ai or RAGatouille wrote.")
    ],
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the new index.")],
    model: Annotated[str, typer.Option(help="Checkpoint that the index was built with: name or path.")],
    collection: Annotated[
        Path | None,
        typer.Option(help="The indexed passages, .tsv or .json. \\[default: collection.json or .tsv in SOURCE]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing index.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert an index of colbert-ai into a new index, without encoding the passages again."""
    with rerank_integrations.import_colbert(
        source, path, ColBERTModel(model), collection=collection, overwrite=overwrite
    ) as index:
        stats = index.stats()
    if as_json:
        write_json({"index": str(path), "source": str(source), "passages": stats.passages, "tokens": stats.tokens})
    else:
        show(f"{path}: {stats.passages:,} passages of {stats.tokens:,} tokens imported from {source}")


def export_colbert(
    path: IndexPath,
    target: Annotated[Path, typer.Argument(help="New folder for colbert-ai.")],
    as_json: AsJson = False,
) -> None:
    """Write an index as a folder that colbert-ai opens."""
    with ColBERTIndex.open(path, read_only=True) as index:
        exported = rerank_integrations.export_colbert(index, target)
        passages = len(index)
    if as_json:
        write_json({"index": str(path), "target": str(exported), "passages": passages})
    else:
        show(f"{exported}: {passages:,} passages exported from {path}")
