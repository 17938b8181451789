"""Passages from files: JSONL in BEIR layout, plain text and Markdown, alone or in folders; streamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.validation import metadata_json
from rerank_integrations.core.jsonl import read_jsonl, read_lines
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexFormatError, InvalidInputError

_FILENAME = "sources.json"
_VERSION = 1
# Passages that are read from the index at once.
_BATCH = 1000

Digests = dict[str, str]
"""By passage's id."""
ByFile = dict[str, Digests]
"""By the name of a file within its source."""


def digest(passage: Passage) -> str:
    """Return a digest of a passage's text and metadata.

    Raises
    ------
    InvalidInputError
        If an index cannot store the passage.
    """
    stored = f"{metadata_json(passage)}\0{passage.text}"
    return hashlib.sha256(stored.encode()).hexdigest()[:32]


def stored_digests(index: ColBERTIndex, ids: Iterable[str]) -> Digests:
    """Return the digest of each passage that `index` holds, of those with these ids."""
    wanted = list(ids)
    return {
        passage.id: digest(passage)
        for start in range(0, len(wanted), _BATCH)
        for passage in index.get(wanted[start : start + _BATCH])
    }


def read_record(index: Path) -> dict[str, ByFile]:
    """Read what the index at `index` holds of each source; nothing where there is no index or no record.

    Raises
    ------
    IndexFormatError
        If the record is damaged.
    """
    file = index / _FILENAME
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text("utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"version is {document['version']!r}; expected {_VERSION}")
        return {source: _checked(files) for source, files in document["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{file} does not say what was indexed from where: {error!r}. Delete it to go on: then no passage is taken "
            "for one of a file that is gone"
        ) from error


def write_record(index: Path, record: Mapping[str, ByFile]) -> None:
    """Replace the record of the index at `index`."""
    # One name will do: the index has one writer.
    temporary = index / f"{_FILENAME}.part"
    temporary.write_text(json.dumps({"version": _VERSION, "sources": record}), "utf-8")
    temporary.replace(index / _FILENAME)


def _checked(files: ByFile) -> ByFile:
    for digests in files.values():
        if not all(isinstance(value, str) for value in digests.values()):
            raise TypeError("a digest is not a string")
    return files


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
    source
        The absolute path of the file or folder that was asked for.
    """

    path: Path
    name: str
    kind: str
    source: str = ""


def find_files(sources: Iterable[Path], known: Container[str] = ()) -> list[SourceFile]:
    """Return the readable files that `sources` name, folders searched recursively, in a stable order.

    Parameters
    ----------
    known
        Folders, by `source_name`, that may have become empty.

    Raises
    ------
    InvalidInputError
        If a named file is of an unknown kind, a folder holds nothing to read, or two files would share a name.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        files = _files_of(source)
        if not files and source_name(source) not in known:
            raise InvalidInputError(f"the folder {source} holds nothing to index; expected {expected_kinds()} files")
        for file in files:
            other = found.setdefault(file.name, file)
            if other.path.resolve() != file.path.resolve():
                raise InvalidInputError(
                    f"{other.path} and {file.path} would share the ids {file.name}#1...; "
                    "expected distinct names: index the folder that holds both"
                )
    return list(found.values())


def source_name(source: Path) -> str:
    """Return the absolute path by which a file or folder is known as a source."""
    return str(source.resolve())


def left_out(sources: Iterable[Path], index: Path) -> Counter[str]:
    """Count the files in folders that `find_files` leaves out, by suffix; ``hidden`` for those under a dotted name.

    The files of the index at `index` do not count.
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
    above = source.resolve().name
    files = []
    for path in sorted(source.rglob("*")):
        kind = _kind(path)
        if kind is not None and path.is_file() and not _is_hidden(path, source):
            name = _unicode(f"{above}/{path.relative_to(source).as_posix()}")
            files.append(SourceFile(path, name, kind, source_name(source)))
    return files


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _unicode(name: str) -> str:
    """Return the name of a file with escapes for bytes that are not UTF-8, which ids and metadata cannot hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix)


def expected_kinds() -> str:
    """Return the suffixes of the files that are read."""
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
