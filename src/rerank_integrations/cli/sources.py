"""Passages from files or folders of JSONL in BEIR layout, plain text and Markdown, streamed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rerank_integrations.core.jsonl import read_jsonl, read_lines
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError

MAX_WORDS = 150

FileKind: TypeAlias = Literal["jsonl", "text", "markdown"]

_KINDS: dict[str, FileKind] = {".jsonl": "jsonl", ".txt": "text", ".md": "markdown"}
_HEADING = re.compile(r"#{1,6} ")
_SENTENCE_ENDS = (".", "!", "?", ":", ";")


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
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix)


def expected_kinds() -> str:
    """Return the suffixes of readable files, for messages."""
    return ", ".join([*_KINDS, *(f"{suffix}.gz" for suffix in _KINDS)])


def read_passages(file: SourceFile) -> Iterator[Passage]:
    """Yield the passages of one file, with one passage in memory at a time.

    A JSONL line is one passage (see `core.jsonl.parse_passage`). Text is divided into passages of whole paragraphs, of
    at most `MAX_WORDS` words, with the ids ``name#1``, ``name#2`` and so on. In Markdown a heading starts a passage.

    Raises
    ------
    InvalidInputError
        For a line that cannot be read; the message names the file and the line.
    """
    if file.kind == "jsonl":
        yield from read_jsonl(file.path, source=file.name)
        return
    paragraphs = _paragraphs(read_lines(file.path), headings=file.kind == "markdown")
    for number, text in enumerate(_pack(paragraphs), start=1):
        yield Passage(f"{file.name}#{number}", text, {"source": file.name})


def _paragraphs(lines: Iterable[str], *, headings: bool) -> Iterator[tuple[bool, list[str]]]:
    """Yield ``(is a heading, words)`` for every paragraph, in pieces of at most `MAX_WORDS` words."""
    words: list[str] = []
    for line in lines:
        heading = headings and _HEADING.match(line) is not None
        if (heading or not line.strip()) and words:
            yield False, words
            words = []
        if heading:
            yield True, line.split()
            continue
        words += line.split()
        while len(words) > MAX_WORDS:
            cut = _last_sentence_end(words[:MAX_WORDS])
            yield False, words[:cut]
            words = words[cut:]
    if words:
        yield False, words


def _last_sentence_end(words: list[str]) -> int:
    """Return the number of words up to the last sentence that ends in their second half, else of all words."""
    for count in range(len(words), len(words) // 2, -1):
        if words[count - 1].endswith(_SENTENCE_ENDS):
            return count
    return len(words)


def _pack(paragraphs: Iterable[tuple[bool, list[str]]]) -> Iterator[str]:
    """Join neighbouring paragraphs as long as they fit; a heading stays with the paragraph after it."""
    passage: list[str] = []
    size, after_heading = 0, False
    for heading, words in paragraphs:
        opens_section = heading and not after_heading
        if passage and (opens_section or size + len(words) > MAX_WORDS):
            yield "\n\n".join(passage)
            passage, size = [], 0
        passage.append(" ".join(words))
        size, after_heading = size + len(words), heading
    if passage:
        yield "\n\n".join(passage)
