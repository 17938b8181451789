"""``rerank-integrations index``: files into an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from rerank_integrations.cli.output import show, tell, write_json
from rerank_integrations.cli.sources import SourceFile, find_files, read_passages
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexExistsError, IndexFormatError


def index(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="The index: made if it does not exist.")],
    sources: Annotated[
        list[Path],
        typer.Argument(exists=True, help="JSONL in BEIR layout, .txt, .md (each also .gz), or folders of them."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: the index's own, or colbertv2.0]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing index instead of adding to it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Index files; a passage whose id is already there is replaced."""
    files = find_files(sources)
    # First pass: no line is bad, and how many there are. Nothing is stored or overwritten before that is known.
    total = sum(1 for file in files for _ in read_passages(file))
    last_chunk: Counter[str] = Counter()
    with _open_or_create(path, model, overwrite=overwrite) as target:
        passages = _read_all(files, last_chunk)
        # delay: an empty bar would stand there while the model loads
        bar = tqdm(passages, total=total, unit=" passages", desc="indexing", disable=None, delay=0.5)
        stored = len(target.upsert(bar, show_progress=False))
        removed = target.delete(_stale(target, last_chunk))
        holds = len(target)
    if as_json:
        write_json({"index": str(path), "files": len(files), "read": stored, "removed": removed, "passages": holds})
        return
    show(f"{path}: {stored:,} passages read from {len(files):,} files; the index holds {holds:,}")
    if removed:
        tell(f"{removed:,} passages removed: their files have become shorter")


def _open_or_create(path: Path, model: str | None, *, overwrite: bool) -> ColBERTIndex:
    chosen = _recorded_model(path) if model is None else ColBERTModel(model)
    try:
        return ColBERTIndex.create(path, chosen, overwrite=overwrite)
    except IndexExistsError:
        return ColBERTIndex.open(path, chosen)


def _recorded_model(path: Path) -> TokenEncoder:
    try:
        with ColBERTIndex.open(path, read_only=True) as existing:
            return existing.model
    except IndexFormatError:
        return ColBERTModel()


def _read_all(files: Iterable[SourceFile], last_chunk: Counter[str]) -> Iterator[Passage]:
    for file in files:
        for passage in read_passages(file):
            if file.kind != "jsonl":
                last_chunk[file.name] += 1
            yield passage


def _stale(target: ColBERTIndex, last_chunk: Counter[str]) -> list[str]:
    """Return the ids of passages past the end of a file, left from when it was longer."""
    stale = []
    for name, number in last_chunk.items():
        while f"{name}#{number + 1}" in target:
            number += 1
            stale.append(f"{name}#{number}")
    return stale
