"""``rerank-integrations index``: store the passages of files in an index."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer
from tqdm import tqdm

from rerank_integrations.cli.index_record import (
    Digests,
    FileRecord,
    Record,
    SourceRecord,
    digests_by_id,
    joined,
    read_record,
    write_record,
)
from rerank_integrations.cli.options import AsJson
from rerank_integrations.cli.output import show, show_on_stderr, write_json
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexExistsError, IndexFormatError, InvalidInputError, MissingExtraError
from rerank_integrations.files.reading import (
    ReadingOptions,
    SplitterFactory,
    is_chunked,
    read_passages,
    reading_fingerprint,
    splitter_factory,
)
from rerank_integrations.files.sources import SourceFile, count_ignored, expected_kinds, find_files, source_name

# Beside 1 for an error and 2 for wrong usage: some files could not be read, the others are indexed.
_EXIT_SOME_UNREADABLE = 3

_PASSAGES_PER_READ = 1000


@dataclass
class _Contents:
    """Contents of the files: what is to be recorded of them, changed passages, and the files that cannot be read.

    `changed` has the passages of all files that are not known to be stored as they are, one per line.
    """

    by_source: Record
    changed: IO[bytes]
    problems: dict[str, str] = field(default_factory=dict)
    read: int = 0

    def digests(self) -> Digests:
        """Return the digest of each passage; the last of several passages with one id counts, as in the index."""
        files = [file for source in self.by_source.values() for file in source.files.values()]
        return {key: value for file in files for key, value in file.digests.items()}

    def passages(self, ids: Container[str]) -> Iterator[Passage]:
        """Yield the changed passages with these ids."""
        self.changed.seek(0)
        for line in self.changed:
            passage = Passage(*json.loads(line))
            if passage.id in ids:
                yield passage


@dataclass
class _Changes:
    """Numbers of passages that a run added, replaced, left unchanged and removed."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing index instead of adding to it.")]
PoolFactor = Annotated[
    float | None,
    typer.Option(help="Keep 1 token vector in so many, 1 to 100. \\[default: the index's own, or 1 for all]"),
]


def index(
    path: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index; created if it does not exist.")],
    sources: Annotated[
        list[Path],
        typer.Argument(
            exists=True,
            help="Files or folders of them: Markdown, text, CSV, JSONL; with the extra \\[files] PDF, HTML, DOCX.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint name or path, or 'starter'. \\[default: the index's own, or colbertv2.0]"),
    ] = None,
    overwrite: Overwrite = False,
    pool_factor: PoolFactor = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(help="Most tokens in a chunk of a text. \\[default: 256, or what the model reads]")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Most tokens shared with the chunk before. \\[default: an eighth of a chunk]")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of CSV that is the text. \\[default: text, else all columns]")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of CSV that is the id. \\[default: _id or id, else the row's number]")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text, CSV and HTML that is not UTF-8, such as cp1252 or gb18030.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store the passages of files in an index; a passage replaces the stored one with its id.

    A folder that was indexed before is synchronized: passages of files that are gone or shorter are removed.
    Passages that were stored in another way stay. Options of reading that are not given stay as they were.
    A file that cannot be read is reported and its stored passages stay. The exit code is then 3.
    """
    options = ReadingOptions(chunk_tokens, chunk_overlap, text_column, id_column, encoding)
    record = {} if overwrite else read_record(path)
    files = find_files(sources, record)
    encoder = _recorded_model(path) if model is None else ColBERTModel(model)
    with tempfile.TemporaryFile(dir=_existing_folder(path)) as changed:
        # All files are read first. Nothing is stored or overwritten before it is known which of them can be read.
        contents = _Contents(_sources(sources, options, record), changed)
        _survey(files, contents, encoder, _still_stored(path, record, contents.by_source))
        if contents.problems and len(contents.problems) == len(files):
            raise InvalidInputError("\n".join(contents.problems.values()))
        _require_own_ids(contents.by_source, record)
        with _open_or_create(path, encoder, pool_factor, overwrite=overwrite) as target:
            # Read it again, now that no other process can write it.
            changes, total = _store(target, contents, {} if overwrite else read_record(path)), len(target)
    _report(path, sources, contents, changes, files=len(files), total=total, as_json=as_json)
    if contents.problems:
        raise typer.Exit(_EXIT_SOME_UNREADABLE)


def _report(
    path: Path, sources: list[Path], contents: _Contents, changes: _Changes, *, files: int, total: int, as_json: bool
) -> None:
    ignored, readable = count_ignored(sources, path), files - len(contents.problems)
    if as_json:
        counts = {"files": readable, "read": contents.read, **asdict(changes)}
        omitted = {"left_out": dict(ignored), "unreadable": list(contents.problems.values())}
        write_json({"index": str(path), **counts, "passages": total, **omitted})
    else:
        show(
            f"{path}: {contents.read:,} passages read from {readable:,} files, "
            f"{changes.added:,} added, {changes.replaced:,} replaced, {changes.unchanged:,} unchanged, "
            f"{changes.removed:,} removed; the index holds {total:,}"
        )
        if ignored:
            counted = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common())
            show_on_stderr(f"files left out: {counted}; those of the kinds {expected_kinds()} are read")
    for problem in contents.problems.values():
        show_on_stderr(f"error: {problem}")


def _existing_folder(path: Path) -> Path:
    """Return the folder at `path` or the nearest above it that exists: it has room for an index, so for its texts."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _open_or_create(path: Path, encoder: TokenEncoder, pool_factor: float | None, *, overwrite: bool) -> ColBERTIndex:
    try:
        new_factor = 1 if pool_factor is None else pool_factor
        return ColBERTIndex.create(path, encoder, pool_factor=new_factor, overwrite=overwrite)
    except IndexExistsError:
        # An index that this process has open already is in use too; `open_or_create` would return that same object.
        ColBERTIndex.open(path, encoder).close()
        return ColBERTIndex.open_or_create(path, encoder, pool_factor=pool_factor)


def _recorded_model(path: Path) -> TokenEncoder:
    try:
        with ColBERTIndex.open(path, read_only=True) as existing:
            return existing.model
    except IndexFormatError:
        return ColBERTModel()


# --- reading the files ---


def _sources(sources: Iterable[Path], options: ReadingOptions, record: Mapping[str, SourceRecord]) -> Record:
    """Return the sources with no files yet; an option that was not given stays as it is recorded."""
    names = [source_name(source) for source in sources]
    recorded = {name: record.get(name, SourceRecord()).options.chosen() for name in names}
    return {name: SourceRecord(ReadingOptions(**{**recorded[name], **options.chosen()})) for name in names}


def _still_stored(
    path: Path, record: Mapping[str, SourceRecord], sources: Container[str]
) -> dict[tuple[str, str], FileRecord]:
    """Return, by source and name, the recorded files whose passages the index stores as they are recorded."""
    record = {name: source for name, source in record.items() if name in sources}
    if not record:
        return {}
    try:
        with ColBERTIndex.open(path, read_only=True) as existing:
            stored = _stored_digests(existing, digests_by_id(record))
    except IndexFormatError:
        return {}
    return {
        (source, name): file
        for source, recorded in record.items()
        for name, file in recorded.files.items()
        if all(stored.get(key) == value for key, value in file.digests.items())
    }


def _survey(
    files: Iterable[SourceFile],
    contents: _Contents,
    encoder: TokenEncoder,
    still_stored: Mapping[tuple[str, str], FileRecord],
) -> None:
    """Read the files that are not stored as they are into `contents`."""
    splitters = {name: splitter_factory(encoder, source.options) for name, source in contents.by_source.items()}
    for file in tqdm(files, unit=" files", desc="reading", disable=None, delay=0.5):
        source = contents.by_source[file.source]
        try:
            fingerprint = reading_fingerprint(file, source.options)
        except OSError as error:
            contents.problems[file.name] = f"{file.path} cannot be read: {error.strerror or error}"
            continue
        known = still_stored.get((file.source, file.name))
        if known is None or known.fingerprint != fingerprint:
            if is_chunked(file):
                # An error of the model is none of the file.
                splitters[file.source]()
            known = _read_whole(file, contents, splitters[file.source], fingerprint)
        if known is not None:
            source.files[file.name] = known
            contents.read += len(known.digests)


def _read_whole(
    file: SourceFile, contents: _Contents, splitter: SplitterFactory, fingerprint: str
) -> FileRecord | None:
    """Add the passages of a file to those that changed, or else its problem if it cannot be read to its end."""
    digests: Digests = {}
    start = contents.changed.tell()
    try:
        for passage in read_passages(file, contents.by_source[file.source].options, splitter):
            digests[passage.id] = _digest(passage)
            line = json.dumps([passage.id, passage.text, passage.metadata])
            contents.changed.write(f"{line}\n".encode())
        return FileRecord(digests, fingerprint)
    except (InvalidInputError, MissingExtraError) as error:
        message = str(error)
        # A passage that cannot be stored is reported without its file.
        contents.problems[file.name] = message if message.startswith(str(file.path)) else f"{file.path}: {message}"
    except OSError as error:
        contents.problems[file.name] = f"{file.path} cannot be read: {error.strerror or error}"
    contents.changed.seek(start)
    contents.changed.truncate()
    return None


def _require_own_ids(current: Mapping[str, SourceRecord], record: Mapping[str, SourceRecord]) -> None:
    """Raise `InvalidInputError` if a numbered passage would replace one of another source's file of the same name.

    Ids that users chose may replace each other, and a source that is gone was moved or is no longer wanted.
    """
    others = {
        source: other.files for source, other in record.items() if source not in current and Path(source).exists()
    }
    for source, read in current.items():
        for name, file in read.files.items():
            numbered = {key for key in file.digests if key.startswith(f"{name}#")}
            for other, other_files in others.items():
                if name in other_files and not numbered.isdisjoint(other_files[name].digests):
                    raise InvalidInputError(
                        f"{source} and {other}, which the index has already, would share the ids {name}#1...; "
                        "expected distinct names: index the folder that holds both, or use another index"
                    )


# --- storing what changed ---


def _store(target: ColBERTIndex, contents: _Contents, record: Mapping[str, SourceRecord]) -> _Changes:
    """Store the changed passages in `target`, remove the passages that are gone, and write the record."""
    wanted, changes = contents.digests(), _Changes()
    stored = _stored_digests(target, wanted)
    fresh = {key for key, value in wanted.items() if stored.get(key) != value}
    changes.unchanged = len(wanted) - len(fresh)
    changes.replaced = len(fresh & stored.keys())
    changes.added = len(fresh) - changes.replaced
    # The record is written before anything changes: a run that is stopped leaves no passage of unknown origin.
    write_record(target.path, joined(record, contents.by_source))
    if fresh:
        # The delay avoids an empty bar while the model loads.
        passages = contents.passages(fresh)
        bar = tqdm(passages, total=len(fresh), unit=" passages", desc="indexing", disable=None, delay=0.5)
        target.upsert(bar, show_progress=False)
    after = {**record, **contents.by_source}
    for source, current in contents.by_source.items():
        recorded = record.get(source, SourceRecord()).files
        # The passages of a file that cannot be read stay.
        current.files |= {name: file for name, file in recorded.items() if name in contents.problems}
    changes.removed = target.delete(_gone(target, record, after))
    write_record(target.path, after)
    return changes


def _gone(target: ColBERTIndex, before: Mapping[str, SourceRecord], after: Mapping[str, SourceRecord]) -> list[str]:
    """Return the ids of passages that no source has any more, and that are stored as they were recorded."""
    remaining = digests_by_id(after)
    gone = {key: digests for key, digests in digests_by_id(before).items() if key not in remaining}
    # A passage that was replaced in another way has another digest, and this command must not remove it.
    return [key for key, value in _stored_digests(target, gone).items() if value in gone[key]]


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
