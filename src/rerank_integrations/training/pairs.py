"""Training pairs in JSON lines."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank_integrations.core.jsonl import read_lines
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.bm25 import BM25

# BM25's best are often answers that nobody marked; those far down teach nothing.
_DEPTH = 20


def mine_negatives(examples: Sequence[Example], count: int, *, seed: int = 0) -> list[Example]:
    """Fill up the negatives of each example to `count` from the positives of the others.

    Drawn from BM25's best 20 for the query, without the positives that the same query has elsewhere; from any, where
    those do not suffice. An example with `count` or more keeps its first ones.

    Raises
    ------
    InvalidInputError
        If there are too few distinct passages.
    """
    pool = list(dict.fromkeys(example.positive for example in examples))
    answers: dict[str, set[str]] = {}
    for example in examples:
        answers.setdefault(example.query, set()).add(example.positive)
    short = [example for example in examples if len(example.negatives) < count]
    most = max((len(answers[example.query]) for example in short), default=0)
    if short and len(pool) < most + count:
        raise InvalidInputError(f"the pairs hold {len(pool)} distinct passages; expected at least {most + count}")
    if not short:
        return [dataclasses.replace(example, negatives=example.negatives[:count]) for example in examples]
    index = BM25()
    index.build([Passage(id=str(place), text=text) for place, text in enumerate(pool)])
    draw = random.Random(seed)
    found = []
    for example in examples:
        wanted = count - len(example.negatives)
        near = index.retrieve(index.encode(example.query), _DEPTH) if wanted > 0 else []
        taken = answers[example.query].union(example.negatives)
        close = [text for place in near if (text := pool[int(place)]) not in taken]
        drawn = draw.sample(close, min(wanted, len(close))) if wanted > 0 else []
        while len(drawn) < wanted:
            text = draw.choice(pool)
            if text not in taken and text not in drawn:
                drawn.append(text)
        found.append(dataclasses.replace(example, negatives=(*example.negatives, *drawn)[:count]))
    return found


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


def _text(value: object, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{place}: {name!r} has {value!r}; expected a text")
    return value
