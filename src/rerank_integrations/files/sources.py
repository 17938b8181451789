"""The files of a source: which of them are read, in which format, and the name that their passages carry."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rerank_integrations.errors import InvalidInputError

FileKind: TypeAlias = Literal["jsonl", "csv", "tsv", "text", "markdown", "html", "pdf", "docx"]

_KINDS: dict[str, FileKind] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
# These formats compress their contents themselves.
_NEVER_GZIPPED = ("pdf", "docx")


@dataclass(frozen=True)
class SourceFile:
    """A file to read, with the name that its passages carry.

    Parameters
    ----------
    path
        The path of the file.
    name
        The path relative to the source that the user named, with forward slashes: the same wherever the command runs.
    kind
        The format, by the file's suffix.
    source
        The absolute path of the file or folder that the user named.
    """

    path: Path
    name: str
    kind: FileKind
    source: str = ""


def find_files(sources: Iterable[Path], known: Container[str] = ()) -> list[SourceFile]:
    """Return the readable files of `sources` in a stable order; folders are searched recursively.

    Parameters
    ----------
    known
        Names (see `source_name`) of folders that may be empty, because they were indexed before.

    Raises
    ------
    InvalidInputError
        If a file is of an unknown kind, a folder holds no readable file, or two files would share a name.
    """
    by_name: dict[str, SourceFile] = {}
    for source in sources:
        files = _files_of(source)
        if not files and source_name(source) not in known:
            raise InvalidInputError(f"the folder {source} holds nothing to index; expected {expected_kinds()} files")
        for file in files:
            other = by_name.setdefault(file.name, file)
            if other.path.resolve() != file.path.resolve():
                raise InvalidInputError(
                    f"{other.path} and {file.path} would share the ids {file.name}#1...; "
                    "expected distinct names: index the folder that holds both"
                )
    return list(by_name.values())


def source_name(source: Path) -> str:
    """Return the absolute path of a file or folder, its name as a source."""
    return str(source.resolve())


def count_ignored(sources: Iterable[Path], index: Path) -> Counter[str]:
    """Count the files of folders that `find_files` ignores, by suffix; ``hidden`` counts those under a dotted name.

    The files of the index at `index` are not counted.
    """
    counts: Counter[str] = Counter()
    for source in map(Path.resolve, sources):
        for path in source.rglob("*") if source.is_dir() else ():
            if not path.is_file() or path.is_relative_to(index.resolve()):
                continue
            if _is_hidden(path, source):
                counts["hidden"] += 1
            elif _kind(path) is None:
                counts[path.suffix.lower() or "without a suffix"] += 1
    return counts


def _files_of(source: Path) -> list[SourceFile]:
    if not source.is_dir():
        kind = _kind(source)
        if kind is None:
            raise InvalidInputError(f"{source} is of an unknown kind; expected {expected_kinds()} or a folder")
        return [SourceFile(source, _unicode(source.name), kind, source_name(source))]
    folder_name = source.resolve().name
    files = []
    for path in sorted(source.rglob("*")):
        kind = _kind(path)
        if kind is not None and path.is_file() and not _is_hidden(path, source):
            name = _unicode(f"{folder_name}/{path.relative_to(source).as_posix()}")
            files.append(SourceFile(path, name, kind, source_name(source)))
    return files


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _unicode(name: str) -> str:
    """Return a file name with escapes for bytes that are not UTF-8, which ids and metadata cannot hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _kind(path: Path) -> FileKind | None:
    name = path.name.lower()
    kind = _KINDS.get(Path(name.removesuffix(".gz")).suffix)
    return None if kind in _NEVER_GZIPPED and name.endswith(".gz") else kind


def readable_suffixes() -> list[str]:
    """Return the suffixes of readable files, without those of compressed ones."""
    return list(_KINDS)


def expected_kinds() -> str:
    """Return the suffixes of readable files, for messages."""
    gzipped = [f"{suffix}.gz" for suffix, kind in _KINDS.items() if kind not in _NEVER_GZIPPED]
    return ", ".join([*_KINDS, *gzipped])
