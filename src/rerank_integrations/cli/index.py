"""``rerank-integrations index``: files into an index."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from rerank_integrations.cli.output import show, tell, write_json
from rerank_integrations.cli.sources import (
    ByFile,
    Digests,
    SourceFile,
    digest,
    expected_kinds,
    find_files,
    left_out,
    read_passages,
    read_record,
    source_name,
    stored_digests,
    write_record,
)
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexExistsError, IndexFormatError, InvalidInputError

# Beside 1 for an error and 2 for wrong usage: what could be read is indexed.
_SOME_UNREADABLE = 3


@dataclass
class _Contents:
    """Contents of the files: digests of their passages by source and file, and the files that cannot be read."""

    by_source: dict[str, ByFile]
    problems: dict[str, str] = field(default_factory=dict)
    read: int = 0

    def digests(self) -> Digests:
        """Return the digest of each passage; of equal ids the last one counts, as in the index."""
        return {key: value for files in self.by_source.values() for ids in files.values() for key, value in ids.items()}


@dataclass
class _Changes:
    """Numbers of passages that a run added, replaced, left unchanged and removed."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


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
    """Index files; a passage whose id is already there is replaced.

    Given a folder again, it also removes the passages of files that are gone or have become shorter; passages that came
    otherwise stay. A file that cannot be read is reported and keeps the passages it has; the exit code is then 3.
    """
    files = find_files(sources, () if overwrite else read_record(path))
    # First pass: what can be read, and what it holds. Nothing is stored or overwritten before that is known.
    contents = _survey(files, sources)
    if files and len(contents.problems) == len(files):
        raise InvalidInputError("\n".join(contents.problems.values()))
    with _open_or_create(path, model, overwrite=overwrite) as target:
        # Again, now that nobody else can write it.
        record = {} if overwrite else read_record(path)
        changes = _store(target, files, contents, record)
        holds = len(target)
    ignored = left_out(sources, path)
    if as_json:
        counts = {"files": len(files) - len(contents.problems), "read": contents.read, **asdict(changes)}
        reported = {"left_out": dict(ignored), "unreadable": list(contents.problems.values())}
        write_json({"index": str(path), **counts, "passages": holds, **reported})
    else:
        show(
            f"{path}: {contents.read:,} passages read from {len(files) - len(contents.problems):,} files, "
            f"{changes.added:,} added, {changes.replaced:,} replaced, {changes.unchanged:,} unchanged, "
            f"{changes.removed:,} removed; the index holds {holds:,}"
        )
        if ignored:
            counted = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common())
            tell(f"files left out: {counted}; those of the kinds {expected_kinds()} are read")
    for problem in contents.problems.values():
        tell(f"error: {problem}")
    if contents.problems:
        raise typer.Exit(_SOME_UNREADABLE)


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


def _survey(files: Iterable[SourceFile], sources: Iterable[Path]) -> _Contents:
    contents = _Contents({source_name(source): {} for source in sources})
    for file in files:
        found, problem = _read_whole(file)
        if problem is None:
            contents.by_source[file.source][file.name] = dict(found)
            contents.read += len(found)
        else:
            contents.problems[file.name] = problem
    return contents


def _read_whole(file: SourceFile) -> tuple[list[tuple[str, str]], str | None]:
    """Return id and digest of each passage of a file, and what is wrong if it cannot be read to its end."""
    try:
        return [(passage.id, digest(passage)) for passage in read_passages(file)], None
    except InvalidInputError as error:
        said = str(error)
        # What cannot be stored is said of a passage, without its file.
        return [], said if said.startswith(str(file.path)) else f"{file.path}: {said}"
    except OSError as error:
        return [], f"{file.path} cannot be read: {error.strerror or error}"


def _store(
    target: ColBERTIndex, files: Iterable[SourceFile], contents: _Contents, record: Mapping[str, ByFile]
) -> _Changes:
    """Bring `target` to what the files hold, and record it."""
    wanted, changes = contents.digests(), _Changes()
    stored = stored_digests(target, wanted)
    fresh = {key for key, value in wanted.items() if stored.get(key) != value}
    changes.unchanged = len(wanted) - len(fresh)
    changes.replaced = len(fresh & stored.keys())
    changes.added = len(fresh) - changes.replaced
    # Before anything changes: a run that is stopped leaves no passage whose origin is unknown.
    write_record(target.path, {**record, **_joined(record, contents.by_source)})
    if fresh:
        readable = [file for file in files if file.name not in contents.problems]
        # delay: an empty bar would stand there while the model loads
        passages = _passages(readable, fresh)
        bar = tqdm(passages, total=len(fresh), unit=" passages", desc="indexing", disable=None, delay=0.5)
        target.upsert(bar, show_progress=False)
    kept = {
        source: {name: ids for name, ids in record.get(source, {}).items() if name in contents.problems} | files_read
        for source, files_read in contents.by_source.items()
    }
    after = {**record, **kept}
    changes.removed = target.delete(_gone(target, record, after))
    write_record(target.path, after)
    return changes


def _joined(record: Mapping[str, ByFile], by_source: Mapping[str, ByFile]) -> dict[str, ByFile]:
    """Return what was recorded of each source together with what it holds now."""
    joined: dict[str, ByFile] = {}
    for source, files in by_source.items():
        joined[source] = dict(record.get(source, {}))
        for name, ids in files.items():
            joined[source][name] = {**joined[source].get(name, {}), **ids}
    return joined


def _gone(target: ColBERTIndex, before: Mapping[str, ByFile], after: Mapping[str, ByFile]) -> list[str]:
    """Return the ids of passages that no source has any more, and that are as they were recorded."""
    left = _recorded(after)
    gone = {key: digests for key, digests in _recorded(before).items() if key not in left}
    # One that was replaced otherwise since then has another digest, and is not for this command to remove.
    return [key for key, value in stored_digests(target, gone).items() if value in gone[key]]


def _recorded(record: Mapping[str, ByFile]) -> dict[str, set[str]]:
    """Return each recorded id with its digests: several files may hold it."""
    found: dict[str, set[str]] = {}
    for files in record.values():
        for ids in files.values():
            for key, value in ids.items():
                found.setdefault(key, set()).add(value)
    return found


def _passages(files: Iterable[SourceFile], ids: Container[str]) -> Iterator[Passage]:
    for file in files:
        for passage in read_passages(file):
            if passage.id in ids:
                yield passage
