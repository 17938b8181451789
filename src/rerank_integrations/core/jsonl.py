"""Passages from JSON lines in BEIR layout, streamed; every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rerank_integrations.core.types import Passage, to_passage
from rerank_integrations.errors import InvalidInputError


def read_jsonl(path: Path, source: str | None = None) -> Iterator[Passage]:
    """Yield one passage per line of a JSONL file, without blank lines.

    Raises
    ------
    InvalidInputError
        For a line that is not a passage; the message names the file and the line.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield parse_passage(line, location=f"{path}, line {number}", source=source)


def parse_passage(line: str, *, location: str, source: str | None = None) -> Passage:
    """Return the passage of one JSON object in BEIR layout: ``_id``, ``title``, ``text``, and the rest as metadata.

    ``id`` may stand for ``_id``. Without either, the id is derived from the text. The title is put before the text and
    stays in the metadata. A nested ``metadata`` object is merged into the metadata.

    Raises
    ------
    InvalidInputError
        If `line` is not such an object; the message starts with `location`.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg}, column {error.colno})"
        raise InvalidInputError(f"{location}: {problem}; expected an object with 'text'") from error
    except RecursionError as error:
        raise InvalidInputError(f"{location}: JSON nested too deep; expected an object with 'text'") from error
    if not isinstance(record, dict):
        raise InvalidInputError(f"{location}: a JSON {type(record).__name__}; expected an object with 'text'")
    try:
        return _from_record(record, source)
    except InvalidInputError as error:
        raise InvalidInputError(f"{location}: {error}") from error


def _from_record(record: dict[str, object], source: str | None) -> Passage:
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
    """Yield the lines of a UTF-8 file, which is decompressed if its name ends in ``.gz``."""
    number = 0
    try:
        with open_bytes(path) as stream:
            # A text stream decodes whole blocks, and an error in a block has no line number.
            for number, line in enumerate(stream, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}, line {number}: not UTF-8 ({error.reason}); expected UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"{path}, line {number + 1}: damaged gzip data ({error})") from error


def open_bytes(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open a file for reading bytes; it is decompressed if its name ends in ``.gz``."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")
