"""Rows of CSV and TSV files as passages."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.files.encodings import open_text

_DELIMITERS = (",", ";", "\t", "|")
_TEXT, _TITLE, _IDS = "text", "title", ("_id", "id")


class _Columns(NamedTuple):
    """The names of all columns, and those of the text, the title and the id; ``None`` where there is no such column."""

    names: list[str]
    text: str | None
    title: str | None
    id: str | None


def read_table(
    path: Path,
    source: str,
    *,
    delimiter: str | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    encoding: str | None = None,
) -> Iterator[Passage]:
    """Yield one passage per row of a file whose first row has the names of the columns.

    Parameters
    ----------
    source
        The name of the file in ids and metadata.
    delimiter
        By default the one of comma, semicolon, tab and bar that divides the first row into the most columns.
    text_column
        By default ``text``, after ``title`` if there is such a column. Without it the text is all columns that are not
        empty, a line ``name: value`` for each.
    id_column
        By default ``_id`` or else ``id``. Without it the ids are ``source#1``, ``source#2`` and so on.
    encoding
        As for `open_text`.

    Raises
    ------
    InvalidInputError
        For a row that cannot be read or has another number of columns, or a named column that does not exist; the
        message names the file and the line.
    """
    with open_text(path, encoding, newline="") as stream:
        columns: _Columns | None = None
        number = 0
        for line, row in _rows(stream, path, delimiter):
            location = f"{path}, line {line}"
            if columns is None:
                columns = _columns(row, location, text_column, id_column)
                continue
            if len(row) != len(columns.names):
                raise InvalidInputError(
                    f"{location}: the row has length {len(row)}; expected {len(columns.names)}, as the first row has"
                )
            number += 1
            yield _passage(dict(zip(columns.names, row, strict=True)), columns, f"{source}#{number}", source, location)


def _rows(lines: Iterable[str], path: Path, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its last line."""
    numbered = enumerate(lines)
    blank, first = next(((number, line) for number, line in numbered if line.strip("\r\n")), (0, ""))
    reader = None
    try:
        if delimiter is None:
            delimiter = max(_DELIMITERS, key=lambda candidate: len(next(csv.reader([first], delimiter=candidate), [])))
        lines_after_blank = itertools.chain([first], (line for _, line in numbered))
        reader = csv.reader(lines_after_blank, delimiter=delimiter, strict=True)
        for row in reader:
            if row:
                yield blank + reader.line_num, row
    except csv.Error as error:
        line = blank + (reader.line_num if reader else 1)
        raise InvalidInputError(f"{path}, line {line}: not CSV ({error})") from error


def _columns(row: list[str], location: str, text_column: str | None, id_column: str | None) -> _Columns:
    """Return the columns that the first row names."""
    # Tables with numbered rows often leave the name of the first column empty.
    names = [name.strip() or f"column_{number}" for number, name in enumerate(row, start=1)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InvalidInputError(f"{location}: several columns are called {repeated[0]!r}; expected distinct names")
    for column in (text_column, id_column):
        if column is not None and column not in names:
            raise InvalidInputError(f"{location}: no column {column!r}; expected it among {', '.join(names)}")
    text = text_column or (_TEXT if _TEXT in names else None)
    title = _TITLE if text == _TEXT and _TITLE in names else None
    return _Columns(names, text, title, id_column or next((name for name in _IDS if name in names), None))


def _passage(record: dict[str, str], columns: _Columns, numbered_id: str, source: str, location: str) -> Passage:
    passage_id = numbered_id if columns.id is None else record.pop(columns.id)
    if not passage_id:
        raise InvalidInputError(f"{location}: nothing in the column {columns.id!r}; expected an id")
    if columns.text is None:
        text = "\n".join(f"{name}: {value}" for name, value in record.items() if value.strip())
    elif columns.text == columns.id:
        text = passage_id
    else:
        title = record[columns.title] if columns.title else ""
        text = f"{title} {record.pop(columns.text)}".strip()
    return Passage(passage_id, text, {"source": source, **record})
