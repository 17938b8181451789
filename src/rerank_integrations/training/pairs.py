"""Training pairs in JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_integrations.core.jsonl import read_lines
from rerank_integrations.errors import InvalidInputError


@dataclass(frozen=True)
class Example:
    """A query, a passage that answers it, and passages that do not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


def read_pairs(path: str | Path) -> list[Example]:
    """Read a JSONL file, plain or gzipped: a line has ``query``, ``positive`` and, if wanted, a list ``negatives``.

    Raises
    ------
    InvalidInputError
        If there is no such file, it is empty, or a line is something else; the message names the file and the line.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidInputError(f"{file} is not a file; expected JSON lines with 'query' and 'positive'")
    found = [
        _example(line, f"{file}, line {number}")
        for number, line in enumerate(read_lines(file), start=1)
        if line.strip()
    ]
    if not found:
        raise InvalidInputError(f"{file} is empty; expected JSON lines with 'query' and 'positive'")
    return found


def _example(line: str, place: str) -> Example:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidInputError(f"{place}: not JSON ({error}); expected an object") from error
    if not isinstance(record, dict):
        raise InvalidInputError(f"{place}: a JSON {type(record).__name__}; expected an object")
    negatives = record.get("negatives") or []
    if not isinstance(negatives, list):
        raise InvalidInputError(f"{place}: 'negatives' is {negatives!r}; expected a list of texts")
    texts = [_text(record.get(name), name, place) for name in ("query", "positive")]
    return Example(texts[0], texts[1], tuple(_text(text, "negatives", place) for text in negatives))


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{place}: {name!r} has {value!r}; expected a text")
    return value
