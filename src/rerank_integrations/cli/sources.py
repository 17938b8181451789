"""Passages from files: JSONL in BEIR layout, plain text and Markdown, alone or in folders; streamed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rerank_integrations.core.jsonl import read_jsonl, read_lines
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError

MAX_WORDS = 150

_KINDS = {".jsonl": "jsonl", ".txt": "text", ".md": "markdown"}
_HEADING = re.compile(r"#{1,6} ")
_SENTENCE_END = (".", "!", "?", ":", ";")


@dataclass(frozen=True)
class SourceFile:
    """A file to read, and the name that its passages are known by.

    Parameters
    ----------
    path
        Where the file is.
    name
        The path from the source that was asked for, with forward slashes: the same wherever the command runs.
    kind
        ``jsonl``, ``text`` or ``markdown``.
    """

    path: Path
    name: str
    kind: str


def find_files(sources: Iterable[Path]) -> list[SourceFile]:
    """Return the readable files that `sources` name, folders searched recursively, in a stable order.

    Raises
    ------
    InvalidInputError
        If a named file is of an unknown kind, a folder holds nothing to read, or two files would share a name.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        for file in _files_of(source):
            other = found.setdefault(file.name, file)
            if other.path.resolve() != file.path.resolve():
                raise InvalidInputError(
                    f"{other.path} and {file.path} would share the ids {file.name}#1...; "
                    "expected distinct names: index the folder that holds both"
                )
    return list(found.values())


def _files_of(source: Path) -> list[SourceFile]:
    if not source.is_dir():
        kind = _kind(source)
        if kind is None:
            raise InvalidInputError(f"{source} is of an unknown kind; expected {_expected()} or a folder")
        return [SourceFile(source, source.name, kind)]
    above = source.resolve().name
    files = []
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        kind = _kind(path)
        if kind is not None and path.is_file() and not any(part.startswith(".") for part in inside.parts):
            files.append(SourceFile(path, f"{above}/{inside.as_posix()}", kind))
    if not files:
        raise InvalidInputError(f"the folder {source} holds nothing to index; expected {_expected()} files")
    return files


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix)


def _expected() -> str:
    return ", ".join([*_KINDS, *(f"{suffix}.gz" for suffix in _KINDS)])


def read_passages(file: SourceFile) -> Iterator[Passage]:
    """Yield the passages of one file, without holding more than one of them.

    A JSONL line is one passage (see `core.jsonl.passage_of_line`). Text is cut into passages of whole paragraphs, at
    most `MAX_WORDS` words each, with ids ``name#1``, ``name#2``...; in Markdown a heading starts a new one.

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
    """Yield ``(is a heading, words)`` for every paragraph, long ones in pieces."""
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
    """Return where to cut `words`: after the last sentence of their second half, else at their end."""
    for place in range(len(words), len(words) // 2, -1):
        if words[place - 1].endswith(_SENTENCE_END):
            return place
    return len(words)


def _pack(paragraphs: Iterable[tuple[bool, list[str]]]) -> Iterator[str]:
    """Join neighbouring paragraphs as long as they fit; a heading goes with what follows it."""
    kept: list[str] = []
    size, after_heading = 0, False
    for heading, words in paragraphs:
        opens_section = heading and not after_heading
        if kept and (opens_section or size + len(words) > MAX_WORDS):
            yield "\n\n".join(kept)
            kept, size = [], 0
        kept.append(" ".join(words))
        size, after_heading = size + len(words), heading
    if kept:
        yield "\n\n".join(kept)
