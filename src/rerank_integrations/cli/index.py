"""``rerank-integrations index``: store the passages of files in an index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from tqdm import tqdm

from rerank_integrations.cli.options import AsJson
from rerank_integrations.cli.output import show, show_on_stderr, write_json
from rerank_integrations.cli.sources import (
    SourceFile,
    count_ignored,
    expected_kinds,
    find_files,
    read_passages,
    source_name,
)
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexExistsError, IndexFormatError, InvalidInputError

# Beside 1 for an error and 2 for wrong usage: some files could not be read, the others are indexed.
_EXIT_SOME_UNREADABLE = 3

_RECORD_NAME = "sources.json"
_RECORD_VERSION = 1
_PASSAGES_PER_READ = 1000

# Digest by id of the passage, digests by name of the file within its source, files by name of the source.
Digests: TypeAlias = dict[str, str]
ByFile: TypeAlias = dict[str, Digests]
Record: TypeAlias = dict[str, ByFile]


@dataclass
class _Contents:
    """Contents of the files: digests of their passages by source and file, and the files that cannot be read."""

    by_source: Record
    problems: dict[str, str] = field(default_factory=dict)
    read: int = 0

    def digests(self) -> Digests:
        """Return the digest of each passage; the last of several passages with one id counts, as in the index."""
        return {key: value for files in self.by_source.values() for ids in files.values() for key, value in ids.items()}


@dataclass
class _Changes:
    """Numbers of passages that a run added, replaced, left unchanged and removed."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


def index(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index; created if it does not exist.")],
    sources: Annotated[
        list[Path],
        typer.Argument(
            exists=True, help="JSONL in BEIR layout, .txt or .md files (each also .gz), or folders of them."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: the index's own, or colbertv2.0]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing index instead of adding to it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store the passages of files in an index; a passage replaces the stored one with its id.

    A folder that was indexed before is synchronized: passages of files that are gone or shorter are removed.
    Passages that were stored in another way stay.
    A file that cannot be read is reported and its stored passages stay. The exit code is then 3.
    """
    files = find_files(sources, () if overwrite else _read_record(path))
    # The first pass reads all files. Nothing is stored or overwritten before it is known which of them can be read.
    contents = _survey(files, sources)
    if files and len(contents.problems) == len(files):
        raise InvalidInputError("\n".join(contents.problems.values()))
    with _open_or_create(path, model, overwrite=overwrite) as target:
        # Read it again, now that no other process can write it.
        record = {} if overwrite else _read_record(path)
        changes = _store(target, files, contents, record)
        total = len(target)
    ignored = count_ignored(sources, path)
    if as_json:
        counts = {"files": len(files) - len(contents.problems), "read": contents.read, **asdict(changes)}
        omitted = {"left_out": dict(ignored), "unreadable": list(contents.problems.values())}
        write_json({"index": str(path), **counts, "passages": total, **omitted})
    else:
        show(
            f"{path}: {contents.read:,} passages read from {len(files) - len(contents.problems):,} files, "
            f"{changes.added:,} added, {changes.replaced:,} replaced, {changes.unchanged:,} unchanged, "
            f"{changes.removed:,} removed; the index holds {total:,}"
        )
        if ignored:
            counted = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common())
            show_on_stderr(f"files left out: {counted}; those of the kinds {expected_kinds()} are read")
    for problem in contents.problems.values():
        show_on_stderr(f"error: {problem}")
    if contents.problems:
        raise typer.Exit(_EXIT_SOME_UNREADABLE)


def _open_or_create(path: Path, model: str | None, *, overwrite: bool) -> ColBERTIndex:
    encoder = _recorded_model(path) if model is None else ColBERTModel(model)
    try:
        return ColBERTIndex.create(path, encoder, overwrite=overwrite)
    except IndexExistsError:
        return ColBERTIndex.open(path, encoder)


def _recorded_model(path: Path) -> TokenEncoder:
    try:
        with ColBERTIndex.open(path, read_only=True) as existing:
            return existing.model
    except IndexFormatError:
        return ColBERTModel()


def _survey(files: Iterable[SourceFile], sources: Iterable[Path]) -> _Contents:
    contents = _Contents({source_name(source): {} for source in sources})
    for file in files:
        digests, problem = _read_whole(file)
        if problem is None:
            contents.by_source[file.source][file.name] = dict(digests)
            contents.read += len(digests)
        else:
            contents.problems[file.name] = problem
    return contents


def _read_whole(file: SourceFile) -> tuple[list[tuple[str, str]], str | None]:
    """Return id and digest of each passage of a file, and the problem if it cannot be read to its end."""
    try:
        return [(passage.id, _digest(passage)) for passage in read_passages(file)], None
    except InvalidInputError as error:
        message = str(error)
        # A passage that cannot be stored is reported without its file.
        return [], message if message.startswith(str(file.path)) else f"{file.path}: {message}"
    except OSError as error:
        return [], f"{file.path} cannot be read: {error.strerror or error}"


def _store(
    target: ColBERTIndex, files: Iterable[SourceFile], contents: _Contents, record: Mapping[str, ByFile]
) -> _Changes:
    """Store the changed passages of the files in `target`, remove the passages that are gone, and write the record."""
    wanted, changes = contents.digests(), _Changes()
    stored = _stored_digests(target, wanted)
    fresh = {key for key, value in wanted.items() if stored.get(key) != value}
    changes.unchanged = len(wanted) - len(fresh)
    changes.replaced = len(fresh & stored.keys())
    changes.added = len(fresh) - changes.replaced
    # The record is written before anything changes: a run that is stopped leaves no passage of unknown origin.
    _write_record(target.path, {**record, **_joined(record, contents.by_source)})
    if fresh:
        readable = [file for file in files if file.name not in contents.problems]
        # The delay avoids an empty bar while the model loads.
        passages = _passages(readable, fresh)
        bar = tqdm(passages, total=len(fresh), unit=" passages", desc="indexing", disable=None, delay=0.5)
        target.upsert(bar, show_progress=False)
    current = {
        source: {name: ids for name, ids in record.get(source, {}).items() if name in contents.problems} | files_read
        for source, files_read in contents.by_source.items()
    }
    after = {**record, **current}
    changes.removed = target.delete(_gone(target, record, after))
    _write_record(target.path, after)
    return changes


def _joined(record: Mapping[str, ByFile], by_source: Mapping[str, ByFile]) -> Record:
    """Return the recorded digests of each source together with its present ones."""
    joined: Record = {}
    for source, files in by_source.items():
        joined[source] = dict(record.get(source, {}))
        for name, ids in files.items():
            joined[source][name] = {**joined[source].get(name, {}), **ids}
    return joined


def _gone(target: ColBERTIndex, before: Mapping[str, ByFile], after: Mapping[str, ByFile]) -> list[str]:
    """Return the ids of passages that no source has any more, and that are stored as they were recorded."""
    remaining = _digests_by_id(after)
    gone = {key: digests for key, digests in _digests_by_id(before).items() if key not in remaining}
    # A passage that was replaced in another way has another digest, and this command must not remove it.
    return [key for key, value in _stored_digests(target, gone).items() if value in gone[key]]


def _digests_by_id(record: Mapping[str, ByFile]) -> dict[str, set[str]]:
    """Return the recorded digests of each id, which are several if several files have it."""
    by_id: dict[str, set[str]] = {}
    for files in record.values():
        for ids in files.values():
            for key, value in ids.items():
                by_id.setdefault(key, set()).add(value)
    return by_id


def _passages(files: Iterable[SourceFile], ids: Container[str]) -> Iterator[Passage]:
    for file in files:
        for passage in read_passages(file):
            if passage.id in ids:
                yield passage


# --- the record of what was indexed from which source ---


def _digest(passage: Passage) -> str:
    """Return a digest of a passage's text and metadata.

    Raises
    ------
    InvalidInputError
        If an index cannot store the passage.
    """
    stored = f"{metadata_json(passage)}\0{passage.text}"
    return hashlib.sha256(stored.encode()).hexdigest()[:32]


def _stored_digests(index: ColBERTIndex, ids: Iterable[str]) -> Digests:
    """Return the digests of the passages with these ids that `index` stores."""
    wanted = list(ids)
    return {
        passage.id: _digest(passage)
        for start in range(0, len(wanted), _PASSAGES_PER_READ)
        for passage in index.get(wanted[start : start + _PASSAGES_PER_READ])
    }


def _read_record(index: Path) -> Record:
    """Return the record of the index at `index`, which is empty where there is no index or no record.

    Raises
    ------
    IndexFormatError
        If the record is damaged.
    """
    file = index / _RECORD_NAME
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text("utf-8"))
        if document["version"] != _RECORD_VERSION:
            raise ValueError(f"version is {document['version']!r}; expected {_RECORD_VERSION}")
        return {source: _require_digests(files) for source, files in document["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{file} does not say what was indexed from where: {error!r}. Delete it to go on: then no passage is taken "
            "for one of a file that is gone"
        ) from error


def _write_record(index: Path, record: Mapping[str, ByFile]) -> None:
    """Replace the record of the index at `index`."""
    # The index has one writer, so the temporary file needs no unique name.
    temporary = index / f"{_RECORD_NAME}.part"
    temporary.write_text(json.dumps({"version": _RECORD_VERSION, "sources": record}), "utf-8")
    temporary.replace(index / _RECORD_NAME)


def _require_digests(files: ByFile) -> ByFile:
    for digests in files.values():
        if not all(isinstance(value, str) for value in digests.values()):
            raise TypeError("a digest is not a string")
    return files
