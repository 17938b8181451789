"""Test collections in BEIR layout, read and checked as a whole before anything is measured on them."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from rerank_integrations.core.jsonl import parse_passage, read_lines
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import InvalidInputError

_SEED = 0
_HEADER = ("query-id", "corpus-id", "score")


class Facts(TypedDict):
    """The identity of a collection: its name, its sizes, and a checksum of all its texts and judgements."""

    name: str
    passages: int
    queries: int
    crc32: str


class Source(TypedDict):
    """Origin of a collection: an absolute path, the split, and the number of queries if some were drawn."""

    folder: str
    split: str
    queries: int | None


@dataclass(frozen=True)
class Dataset:
    """A corpus, and queries with the passages that answer them.

    Parameters
    ----------
    name
        Its name in reports.
    passages
        Each text is title and text.
    queries
        Text by id: the queries that `qrels` judges, in the order of the file.
    qrels
        By query's id, the grade of each judged passage by its id; above 0 is relevant. Each query has such a passage.
    source
        Where it was read: ``folder``, as an absolute path, ``split``, and the number of ``queries`` if some were drawn.
    """

    name: str
    passages: tuple[Passage, ...]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    source: Source | None = field(default=None, compare=False)

    def drawn(self, count: int) -> Dataset:
        """Return the collection with `count` of its queries, always the same ones; itself if it has no more.

        Raises
        ------
        InvalidInputError
            If `count` is below 1.
        """
        if type(count) is not int or count < 1:
            raise InvalidInputError(f"queries is {count!r}; expected a whole number of at least 1")
        if len(self.queries) <= count:
            return self
        chosen = set(random.Random(_SEED).sample(sorted(self.queries), count))
        queries = {key: text for key, text in self.queries.items() if key in chosen}
        return replace(self, queries=queries, qrels={key: self.qrels[key] for key in queries})

    def facts(self) -> Facts:
        """Return name, sizes and a checksum of everything, by which a result says what it was measured on."""
        judged = json.dumps(self.qrels, sort_keys=True)
        texts = (text for passage in self.passages for text in (passage.id, passage.text))
        crc = 0
        for text in (*texts, *self.queries, *self.queries.values(), judged):
            crc = zlib.crc32(f"{text}\0".encode(), crc)
        return {
            "name": self.name,
            "passages": len(self.passages),
            "queries": len(self.queries),
            "crc32": f"{crc:08x}",
        }


def load_dataset(folder: str | Path, split: str = "test", queries: int | None = None) -> Dataset:
    """Read a folder in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, plain or gzipped.

    Judgements of grade 0 or less stay in the qrels; a query with no others is omitted, since no order of passages is
    right or wrong for it.

    Parameters
    ----------
    queries
        Draw this many queries, always the same ones; all if there are no more.

    Raises
    ------
    InvalidInputError
        If a file is missing, empty or damaged, an id occurs twice, or a judgement names an unknown query or passage;
        the message names the file and the line.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidInputError(f"{root} is not a folder; expected one with corpus.jsonl, queries.jsonl and qrels/")
    # All files first, so that a missing one is reported at once and not after a long corpus.
    corpus_file, queries_file = _file(root, "corpus.jsonl"), _file(root, "queries.jsonl")
    qrels_file = _file(root / "qrels", f"{split}.tsv")
    passages = _unique(corpus_file)
    texts = {query.id: query.text for query in _unique(queries_file, blank="a query without words")}
    qrels = _read_qrels(qrels_file, texts, queries_file, {passage.id for passage in passages}, corpus_file)
    judged = {key: text for key, text in texts.items() if any(grade > 0 for grade in qrels.get(key, {}).values())}
    if not judged:
        raise InvalidInputError(f"{qrels_file} judges no passage relevant; expected a score above 0")
    source = Source(folder=str(root.resolve()), split=split, queries=queries)
    whole = Dataset(root.resolve().name, tuple(passages), judged, {key: qrels[key] for key in judged}, source)
    return whole if queries is None else whole.drawn(queries)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidInputError(f"{folder / name} is missing, and so is {name}.gz; expected one of them")


def _unique(path: Path, blank: str | None = None) -> list[Passage]:
    passages: list[Passage] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        passage = parse_passage(line, location=f"{path}, line {number}")
        try:
            f"{passage.id}{passage.text}".encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise InvalidInputError(f"{path}, line {number}: half a character, {half}; expected whole ones") from error
        if blank is not None and not passage.text.strip():
            raise InvalidInputError(f"{path}, line {number}: {blank}; expected text")
        first = lines.setdefault(passage.id, number)
        if first != number:
            raise InvalidInputError(f"{path}, line {number}: the id {passage.id!r} stands in line {first} too")
        passages.append(passage)
    if not passages:
        raise InvalidInputError(f"{path} is empty; expected a JSON object a line")
    return passages


def _read_qrels(
    path: Path, queries: dict[str, str], queries_file: Path, passages: set[str], corpus_file: Path
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for position, (query, passage, grade) in _judgements(path):
        if query not in queries:
            raise InvalidInputError(f"{position}: {queries_file} holds no query {query!r}")
        if passage not in passages:
            raise InvalidInputError(f"{position}: {corpus_file} holds no passage {passage!r}")
        if qrels.setdefault(query, {}).setdefault(passage, grade) != grade:
            other = qrels[query][passage]
            raise InvalidInputError(f"{position}: {query!r} and {passage!r} have the score {other} in another line")
    if not qrels:
        raise InvalidInputError(f"{path} is empty; expected lines of query-id, corpus-id and score")
    return qrels


def _judgements(path: Path) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for number, line in enumerate(read_lines(path), start=1):
        position, fields = f"{path}, line {number}", tuple(line.rstrip("\r\n").split("\t"))
        if not line.strip() or (number == 1 and fields == _HEADER):
            continue
        if len(fields) != len(_HEADER):
            raise InvalidInputError(
                f"{position}: {len(fields)} fields; expected query-id, corpus-id and score, by tabs"
            )
        try:
            grade = int(fields[2])
        except ValueError as error:
            raise InvalidInputError(f"{position}: the score is {fields[2]!r}; expected a whole number") from error
        yield position, (fields[0], fields[1], grade)
