"""What an index says of itself, and whether it is sound."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerank_integrations.core.index import row_checksums
from rerank_integrations.core.index.catalog import FILENAME, Catalog, codec_records, commit_seen, segment_records
from rerank_integrations.core.index.codecs import Codec
from rerank_integrations.core.index.refusals import lacking_for_read
from rerank_integrations.core.index.row_checksums import any_text, content_crc, place_crc
from rerank_integrations.core.index.schema import FORMAT_VERSION, read_meta, recorded_dim, stored_passage
from rerank_integrations.core.index.segment_folders import CODECS, SEGMENTS
from rerank_integrations.core.index.vector_files import check_codec, check_segment, open_codec, open_segment
from rerank_integrations.errors import IndexFormatError

# How many damaged passages a message names; it counts the others.
_NAMED = 20


@dataclass(frozen=True)
class IndexStats:
    """Counts and sizes.

    Parameters
    ----------
    passages, tokens, segments
        Passages that can be found, their token vectors, and the files' folders.
    bytes
        On disk, all together.
    vector_bytes
        Of those, what the tokens take: segments and codecs, without the catalog's texts, ids and metadata.
    dim
        Of a token vector; ``None`` before the first passage.
    bytes_per_token, bytes_per_passage
        `bytes` over `tokens` and over `passages`; 0.0 for an empty index.
    model
        The name or path of the model that made it.
    kind
        ``"exact"``: float16 vectors, every one of them scored; ``"plaid"``: compressed ones, searched by centroids.
    nbits
        Bits a dimension of a compressed residual.
    centroids
        Of the newest codec; 0 for an exact index.
    """

    passages: int
    tokens: int
    segments: int
    bytes: int
    vector_bytes: int
    dim: int | None
    bytes_per_token: float
    bytes_per_passage: float
    model: str
    kind: str
    nbits: int
    centroids: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class VerifyReport:
    """What was found sound."""

    passages: int
    tokens: int
    segments: int


def collect_stats(connection: sqlite3.Connection, path: Path, meta: Mapping[str, str], model: str) -> IndexStats:
    """Count what the catalog and the files hold."""
    passages, tokens = connection.execute("SELECT count(*), coalesce(sum(tokens), 0) FROM passages").fetchone()
    size = sum(_sizes(path))
    vectors = sum(sum(_sizes(path / folder)) for folder in (SEGMENTS, CODECS))
    codec = connection.execute("SELECT centroids FROM codecs ORDER BY number DESC LIMIT 1").fetchone()
    return IndexStats(
        passages=passages,
        tokens=tokens,
        segments=len(segment_records(connection)),
        bytes=size,
        vector_bytes=vectors,
        dim=int(meta["dim"]) if "dim" in meta else None,
        bytes_per_token=size / tokens if tokens else 0.0,
        bytes_per_passage=size / passages if passages else 0.0,
        model=model,
        kind="plaid" if codec else "exact",
        nbits=int(meta["nbits"]),
        centroids=codec[0] if codec else 0,
    )


def verify_index(catalog: Catalog, path: Path) -> VerifyReport:
    """Read everything and compare it with its checksums and with one another.

    Raises
    ------
    IndexFormatError
        Listing every problem found.
    """
    while True:
        with catalog.read() as connection:
            before = commit_seen(connection)
            # What stops several parts is said once.
            problems = list(dict.fromkeys(_problems(connection, path)))
            if not problems:
                return _report(connection)
        with catalog.read() as connection:
            if commit_seen(connection) == before:
                raise IndexFormatError(f"{path} is damaged: " + "; ".join(problems))
        # A writer has committed meanwhile, and may have removed files that it no longer needs: not damage.


def _report(connection: sqlite3.Connection) -> VerifyReport:
    query = "SELECT count(*), coalesce(sum(tokens), 0), (SELECT count(*) FROM segments) FROM passages"
    return VerifyReport(*connection.execute(query).fetchone())


def _sizes(path: Path) -> Iterator[int]:
    for folder, _, names in os.walk(path):
        for name in names:
            # A writer may remove files meanwhile, and a link may lead nowhere.
            with contextlib.suppress(OSError):
                yield (Path(folder) / name).stat().st_size


def _problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    # Each by itself: what stops one does not hide what others find.
    yield from _tried(path, lambda: _database_problems(connection))
    yield from _tried(path, lambda: _own_problems(connection, path))
    yield from _tried(path, lambda: _file_problems(connection, path))
    yield from _tried(path, lambda: _row_problems(connection, path))


def _tried(path: Path, problems: Callable[[], Iterable[str]]) -> Iterator[str]:
    try:
        yield from problems()
    except (sqlite3.DatabaseError, IndexFormatError) as error:
        # What the system refuses is no damage.
        if lacking := lacking_for_read(path / FILENAME):
            raise lacking from error
        yield f"catalog: {error}"


def _database_problems(connection: sqlite3.Connection) -> Iterator[str]:
    with any_text(connection):
        for (finding,) in connection.execute("PRAGMA integrity_check").fetchall():
            if finding != "ok":
                yield f"catalog: {finding}"
        lost = Counter(table for table, *_ in connection.execute("PRAGMA foreign_key_check"))
    for table, count in sorted(lost.items()):
        yield f"catalog: {count} rows of {table} point to rows that are not there"


def _own_problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    meta = read_meta(connection, path)
    if meta["format"] == str(FORMAT_VERSION):
        yield from (f"catalog: {problem}" for problem in row_checksums.table_problems(connection))
        yield from (f"catalog: {problem}" for problem in row_checksums.total_problems(connection))


def _file_problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    dim = recorded_dim(read_meta(connection, path))
    codecs: dict[str, Codec] = {}
    if connection.execute("SELECT count(*) FROM codecs").fetchone()[0]:
        for codec in codec_records(connection):
            problems = list(check_codec(path, codec))
            yield from problems
            if not problems:
                codecs[codec.name] = open_codec(path, codec)
    for record in segment_records(connection):
        if record.codec is not None and record.codec not in codecs:
            yield f"segment {record.name} cannot be read: its codec {record.codec} is damaged, or not there"
        else:
            yield from check_segment(path, record, codecs[record.codec] if record.codec else None, dim)


def _row_problems(connection: sqlite3.Connection, path: Path) -> Iterator[str]:
    """Read every passage: its columns, its checksums, and whether its segment has so many tokens at its place."""
    checked = read_meta(connection, path)["format"] == str(FORMAT_VERSION)
    columns = "pid, id, text, metadata, segment, ordinal, tokens"
    query = f"SELECT {columns}, {'content_crc, place_crc' if checked else 'NULL, NULL'} FROM passages"
    lengths = _lengths(connection, path)
    damaged: dict[str, list[str]] = defaultdict(list)
    with any_text(connection):
        for row in connection.execute(query):
            if problem := _row_problem(row, lengths, checked):
                damaged[problem].append(repr(row[1]))
    for problem, ids in damaged.items():
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        yield f"catalog: {len(ids)} passages {problem}: {', '.join(ids[:_NAMED])}{more}"


def _row_problem(row: tuple[Any, ...], lengths: Mapping[str, list[int] | None], checked: bool) -> str | None:
    pid, passage_id, text, metadata, segment, ordinal, tokens, of_content, of_place = row
    if checked and of_content != content_crc(pid, passage_id, text, metadata):
        return "have an id, a text or metadata that are not as they were written"
    if checked and of_place != place_crc(pid, segment, ordinal, tokens):
        return "have a place that is not as it was written"
    try:
        stored_passage(passage_id, text, metadata)
        # Lone surrogates stand for bytes that are not UTF-8.
        passage_id.encode(), text.encode(), metadata.encode()
    except (IndexFormatError, UnicodeEncodeError):
        return "have an id, a text or metadata that are none"
    if not isinstance(segment, str) or segment not in lengths:
        return "point to vectors that no segment holds"
    found = lengths[segment]
    if found is None:
        return None
    if type(ordinal) is not int or not 0 <= ordinal < len(found):
        return "point to vectors that no segment holds"
    if tokens != found[ordinal]:
        return "have another number of tokens than their vectors"
    return None


def _lengths(connection: sqlite3.Connection, path: Path) -> dict[str, list[int] | None]:
    """Return how many tokens each passage of each segment has; ``None`` where its files do not tell."""
    lengths: dict[str, list[int] | None] = {}
    for record in segment_records(connection):
        lengths[record.name] = None
        # What is wrong with its files is said of them.
        with contextlib.suppress(OSError, IndexFormatError):
            lengths[record.name] = np.diff(open_segment(path, record).offsets).tolist()
    return lengths
