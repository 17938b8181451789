"""Statistics of an index, and verification of its files and catalog."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rerank_integrations.core.index.storage.catalog import FILENAME, Catalog, ReadTransaction
from rerank_integrations.core.index.storage.catalog_rules import (
    FORMAT_WITHOUT_CHECKSUMS,
    content_crc,
    place_crc,
    recorded_bm25_weight,
    recorded_dim,
    recorded_pool_factor,
    stored_passage,
)
from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.refusals import lacking_for_read
from rerank_integrations.core.index.storage.segment_folders import CODECS, SEGMENTS
from rerank_integrations.core.index.storage.vector_files import check_codec, check_segment, open_codec, open_segment
from rerank_integrations.errors import IndexFormatError

# How many damaged passages a message names; it counts the others.
_MAX_NAMED = 20


@dataclass(frozen=True)
class IndexStats:
    """Counts and sizes of an index.

    Parameters
    ----------
    passages, tokens, segments
        Stored passages, their token vectors, and the folders that hold these.
    bytes
        Size of all files.
    vector_bytes
        Size of the token vectors' files: segments and codecs, without the catalog's texts, ids and metadata.
    dim
        Dimensions of a token vector; ``None`` before the first passage.
    bytes_per_token, bytes_per_passage
        `bytes` over `tokens` and over `passages`; 0.0 for an empty index.
    model
        The name or path of the model that made it.
    kind
        ``"exact"``: float16 vectors, all of which are scored; ``"plaid"``: compressed ones, searched by centroids.
    nbits
        Bits per dimension of a compressed residual.
    centroids
        How many centroids the newest codec has; 0 for an exact index.
    text_bytes
        Size of the text index, which BM25 searches; ``None`` without one.
    bm25_weight
        The share of BM25 in a hybrid search that is stored in the index; ``None`` for the default.
    pool_factor
        By what factor the token vectors of a passage are pooled; 1.0 if they are not.
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
    text_bytes: int | None
    bm25_weight: float | None
    pool_factor: float

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class VerifyReport:
    """Counts of what was verified and found sound."""

    passages: int
    tokens: int
    segments: int


def collect_stats(transaction: ReadTransaction, path: Path, meta: Mapping[str, str], model: str) -> IndexStats:
    """Return the counts and sizes of the index at `path`."""
    passages, tokens, _ = transaction.sizes()
    size = sum(_sizes(path))
    vectors = sum(sum(_sizes(path / folder)) for folder in (SEGMENTS, CODECS))
    return IndexStats(
        passages=passages,
        tokens=tokens,
        segments=len(transaction.segment_records()),
        bytes=size,
        vector_bytes=vectors,
        dim=int(meta["dim"]) if "dim" in meta else None,
        bytes_per_token=size / tokens if tokens else 0.0,
        bytes_per_passage=size / passages if passages else 0.0,
        model=model,
        kind="plaid" if transaction.has_codec() else "exact",
        nbits=int(meta["nbits"]),
        centroids=transaction.newest_centroid_count(),
        text_bytes=transaction.text_bytes(),
        bm25_weight=recorded_bm25_weight(meta),
        pool_factor=recorded_pool_factor(meta),
    )


def verify_index(catalog: Catalog, path: Path) -> VerifyReport:
    """Read everything and compare it with its checksums and with one another.

    Raises
    ------
    IndexFormatError
        Listing every problem found.
    """
    while True:
        with catalog.read() as transaction:
            before = transaction.commit()
            # A fault that stops several parts is reported once.
            problems = list(dict.fromkeys(_problems(transaction, path)))
            if not problems:
                return VerifyReport(*transaction.sizes())
        with catalog.read() as transaction:
            if transaction.commit() == before:
                raise IndexFormatError(f"{path} is damaged: " + "; ".join(problems))
        # This is no damage: a writer has committed meanwhile and may have removed files that it no longer needs.


def _sizes(path: Path) -> Iterator[int]:
    for folder, _, names in os.walk(path):
        for name in names:
            # A writer may remove files meanwhile, and a link may lead nowhere.
            with contextlib.suppress(OSError):
                yield (Path(folder) / name).stat().st_size


def _problems(transaction: ReadTransaction, path: Path) -> Iterator[str]:
    # Each by itself, so that a fault which stops one check does not hide the findings of others.
    yield from _tried(path, lambda: (f"catalog: {problem}" for problem in transaction.database_problems()))
    yield from _tried(path, lambda: _own_problems(transaction, path))
    yield from _tried(path, lambda: (f"catalog: {problem}" for problem in transaction.text_problems()))
    yield from _tried(path, lambda: _file_problems(transaction, path))
    yield from _tried(path, lambda: _row_problems(transaction, path))


def _tried(path: Path, problems: Callable[[], Iterable[str]]) -> Iterator[str]:
    try:
        yield from problems()
    except (sqlite3.DatabaseError, IndexFormatError) as error:
        # A refusal of the operating system is no damage.
        if lacking := lacking_for_read(path / FILENAME):
            raise lacking from error
        yield f"catalog: {error}"


def _own_problems(transaction: ReadTransaction, path: Path) -> Iterator[str]:
    meta = transaction.meta()
    if meta["format"] != FORMAT_WITHOUT_CHECKSUMS:
        yield from (f"catalog: {problem}" for problem in transaction.checksum_problems())


def _file_problems(transaction: ReadTransaction, path: Path) -> Iterator[str]:
    dim = recorded_dim(transaction.meta())
    codecs: dict[str, Codec] = {}
    for codec in transaction.codec_records():
        problems = list(check_codec(path, codec))
        yield from problems
        if not problems:
            codecs[codec.name] = open_codec(path, codec)
    for record in transaction.segment_records():
        if record.codec is not None and record.codec not in codecs:
            yield f"segment {record.name} cannot be read: its codec {record.codec} is damaged, or not there"
        else:
            yield from check_segment(path, record, codecs[record.codec] if record.codec else None, dim)


def _row_problems(transaction: ReadTransaction, path: Path) -> Iterator[str]:
    """Read every passage: its columns, its checksums, and whether its segment has so many tokens at its place."""
    checked = transaction.meta()["format"] != FORMAT_WITHOUT_CHECKSUMS
    lengths = _lengths(transaction, path)
    damaged: dict[str, list[str]] = defaultdict(list)
    with contextlib.closing(transaction.raw_rows(checksums=checked)) as rows:
        for row in rows:
            if problem := _row_problem(row, lengths, checked):
                damaged[problem].append(repr(row[1]))
    for problem, ids in damaged.items():
        more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
        yield f"catalog: {len(ids)} passages {problem}: {', '.join(ids[:_MAX_NAMED])}{more}"


def _row_problem(row: tuple[object, ...], lengths: Mapping[str, list[int] | None], checked: bool) -> str | None:
    pid, passage_id, text, metadata, segment, ordinal, tokens, of_content, of_place = row
    if checked and of_content != content_crc(pid, passage_id, text, metadata):
        return "have an id, a text or metadata that are not as they were written"
    if checked and of_place != place_crc(pid, segment, ordinal, tokens):
        return "have a place that is not as it was written"
    try:
        passage = stored_passage(passage_id, text, metadata)
        # Lone surrogates stand for bytes that are not UTF-8.
        for stored in (passage.id, passage.text, str(metadata)):
            stored.encode()
    except (IndexFormatError, UnicodeEncodeError):
        return "have an id, a text or metadata that are none"
    if not isinstance(segment, str) or segment not in lengths:
        return "point to vectors that no segment holds"
    expected = lengths[segment]
    if expected is None:
        return None
    if type(ordinal) is not int or not 0 <= ordinal < len(expected):
        return "point to vectors that no segment holds"
    if tokens != expected[ordinal]:
        return "have another number of tokens than their vectors"
    return None


def _lengths(transaction: ReadTransaction, path: Path) -> dict[str, list[int] | None]:
    """Return how many tokens each passage of each segment has; ``None`` where its files cannot be read."""
    lengths: dict[str, list[int] | None] = {}
    for record in transaction.segment_records():
        lengths[record.name] = None
        # Faults of its files are reported by `check_segment`.
        with contextlib.suppress(OSError, IndexFormatError):
            lengths[record.name] = np.diff(open_segment(path, record).offsets).tolist()
    return lengths
