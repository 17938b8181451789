"""Texts, ids and metadata of an exported index, written as they come."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from rerank_integrations.core.index.colbert_ai.collection import (
    COLLECTION_JSON,
    COLLECTION_TSV,
    DOCID_METADATA_MAP,
    PID_DOCID_MAP,
)
from rerank_integrations.core.index.storable import metadata_json
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError

_NOT_IN_TSV = re.compile(r"[\t\r\n]")


class Row(NamedTuple):
    """A passage that can be stored; `metadata` is JSON text."""

    id: str
    text: str
    metadata: str


def storable_rows(passages: Sequence[Passage], taken: set[str]) -> list[Row]:
    """Return a row for each passage.

    Raises
    ------
    InvalidInputError
        If one cannot be stored, or its id is among `taken` or comes twice.
    """
    rows = [Row(passage.id, passage.text, metadata_json(passage)) for passage in passages]
    seen: set[str] = set()
    for row in rows:
        if row.id in taken or row.id in seen:
            raise InvalidInputError(f"passage id {row.id!r} comes twice; expected ids that are unique in the index")
        seen.add(row.id)
    return rows


class CollectionFiles:
    """``collection.tsv`` for colbert-ai, and the three files that RAGatouille keeps, open for writing in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._tsv = self._open(folder / COLLECTION_TSV)
        self._texts = _JsonLines(self._open(folder / COLLECTION_JSON), "[", "]")
        self._ids = _JsonLines(self._open(folder / PID_DOCID_MAP), "{", "}")
        self._metadata = _JsonLines(self._open(folder / DOCID_METADATA_MAP), "{", "}")

    def write(self, rows: Sequence[Row], first_pid: int) -> None:
        """Append passages, the first of which has the number `first_pid`."""
        for pid, row in enumerate(rows, first_pid):
            self._tsv.write(f"{pid}\t{_NOT_IN_TSV.sub(' ', row.text)}\n")
            self._texts.write(_json(row.text))
            self._ids.write(f'"{pid}": {_json(row.id)}')
            if row.metadata != "{}":
                self._metadata.write(f"{_json(row.id)}: {row.metadata}")

    def finish(self) -> None:
        """Write the ends, and close."""
        for lines in (self._texts, self._ids, self._metadata):
            lines.end()
        self._stack.close()

    def discard(self) -> None:
        """Close, whatever was written; a second time it is nothing."""
        # What the buffers still hold may not fit on a full disk.
        with contextlib.suppress(OSError):
            self._stack.close()

    def _open(self, path: Path) -> TextIO:
        return self._stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))


class _JsonLines:
    def __init__(self, stream: TextIO, start: str, end: str) -> None:
        self._stream = stream
        self._before = start + "\n"
        self._start = self._before
        self._end = end

    def write(self, item: str) -> None:
        self._stream.write(self._before + item)
        self._before = ",\n"

    def end(self) -> None:
        self._stream.write((self._start if self._before == self._start else "\n") + self._end + "\n")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
