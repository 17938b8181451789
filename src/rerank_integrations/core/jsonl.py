"""Passages in JSON lines, in BEIR layout; streamed, with a place for everything that is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rerank_integrations.core.types import Passage, to_passage
from rerank_integrations.errors import InvalidInputError


def read_jsonl(path: Path, source: str | None = None) -> Iterator[Passage]:
    """Yield a passage for every line of a JSONL file that is not blank.

    Raises
    ------
    InvalidInputError
        For a line that is not a passage; the message names the file and the line.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield passage_of_line(line, place=f"{path}, line {number}", source=source)


def passage_of_line(line: str, *, place: str, source: str | None = None) -> Passage:
    """Make a passage of one JSON object in BEIR layout: ``_id``, ``title``, ``text``, and the rest as metadata.

    ``id`` is taken for ``_id``; without either the id comes from the text. The title goes before the text, and
    stays in the metadata. A nested ``metadata`` object is merged into it.

    Raises
    ------
    InvalidInputError
        If `line` is not such an object; the message starts with `place`.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg}, column {error.colno})"
        raise InvalidInputError(f"{place}: {what}; expected an object with 'text'") from error
    except RecursionError as error:
        raise InvalidInputError(f"{place}: JSON nested too deep; expected an object with 'text'") from error
    if not isinstance(record, dict):
        raise InvalidInputError(f"{place}: a JSON {type(record).__name__}; expected an object with 'text'")
    try:
        return _from_record(record, source)
    except InvalidInputError as error:
        raise InvalidInputError(f"{place}: {error}") from error


def _from_record(record: dict[str, Any], source: str | None) -> Passage:
    passage_id = record.pop("_id", None)
    if passage_id is None:
        passage_id = record.pop("id", None)
    if isinstance(passage_id, int) and not isinstance(passage_id, bool):
        passage_id = str(passage_id)
    title, text = record.get("title") or "", record.pop("text", None)
    if not isinstance(text, str):
        raise InvalidInputError(f"'text' is {text!r}; expected a string")
    if not isinstance(title, str):
        raise InvalidInputError(f"'title' is {title!r}; expected a string")
    nested = record.pop("metadata", None)
    if not isinstance(nested, dict | None):
        raise InvalidInputError(f"'metadata' is {nested!r}; expected an object")
    if not title:
        record.pop("title", None)
    metadata = {**({} if source is None else {"source": source}), **(nested or {}), **record}
    return to_passage({"id": passage_id, "text": f"{title} {text}".strip(), "metadata": metadata})


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, unpacked if its name ends in ``.gz``."""
    number = 0
    try:
        with _open(path) as stream:
            # Line by line: a stream of text decodes blocks, and an error in one has no line.
            for number, line in enumerate(stream, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}, line {number}: not UTF-8 ({error.reason}); expected UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{path}, line {number + 1}: damaged gzip data ({error})") from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")
