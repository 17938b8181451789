"""Compaction: new segments made of the passages of old ones, joined, without dead passages, or compressed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.warming import require_compiled, start_compiling
from rerank_integrations.core.index.storage.catalog import Catalog, ReadTransaction, WriteTransaction
from rerank_integrations.core.index.storage.catalog_rules import recorded_dim
from rerank_integrations.core.index.storage.codecs import Codec, Codes, joined
from rerank_integrations.core.index.storage.records import SegmentRecord
from rerank_integrations.core.index.storage.segment_folders import Folders
from rerank_integrations.core.index.storage.segments import FloatSegment, PlaidSegment, Segment
from rerank_integrations.core.index.storage.vector_files import (
    check_segment,
    open_codec,
    open_segment,
    require_fitting,
    write_compressed,
    write_segment,
)
from rerank_integrations.errors import IndexFormatError

_LOGGER = logging.getLogger(__name__)

# Past either, exact search takes longer than users wait. With twice as many tokens it takes a tenth of a second in
# float32, half of that in bfloat16.
_MAX_EXACT_PASSAGES = 1 << 12
_MAX_EXACT_TOKENS = 1 << 17
# Fewer tokens make no use of centroids.
_MIN_COMPRESSED_TOKENS = 1 << 12
# A long upsert is compressed at its end, with centroids of all of it, but no later than at so many tokens: 1 GB at 128
# dimensions.
_MAX_WAITING_TOKENS = 1 << 22
# Centroids serve a corpus until it is this many times as large as the one that they were trained on.
_OUTGROWN_FACTOR = 4
# The search loops are compiled while the last three quarters of the passages that get an index compressed are encoded.
_EARLY_FACTOR = 4
# As many tokens per centroid as k-means needs, but no more than 256 MB of float16 at 128 dimensions.
_TOKENS_PER_CENTROID = 64
_MAX_SAMPLE_TOKENS = 1 << 20


def must_compress(passages: int, tokens: int, *, finished: bool) -> bool:
    """Return whether an exact index of this size becomes a PLAID index, now or when its upsert has `finished`."""
    if not finished:
        return tokens >= _MAX_WAITING_TOKENS
    return tokens >= _MIN_COMPRESSED_TOKENS and (passages >= _MAX_EXACT_PASSAGES or tokens >= _MAX_EXACT_TOKENS)


def start_compiling_early(
    transaction: ReadTransaction, meta: Mapping[str, str], passages: int = 0, tokens: int = 0
) -> None:
    """Have another process compile the search loops if the index is compressed, or soon will be."""
    # A catalog without this number is damaged, which is reported elsewhere.
    if not meta.get("nbits", "").isdecimal():
        return
    compressed = transaction.has_codec()
    if compressed or must_compress(_EARLY_FACTOR * passages, _EARLY_FACTOR * tokens, finished=True):
        start_compiling(int(meta["nbits"]))


def compile_now(catalog: Catalog, index_path: Path) -> None:
    """Have another process compile the search loops, and wait for it."""
    with catalog.read() as transaction:
        nbits = transaction.meta().get("nbits", "")
    if nbits.isdecimal():
        require_compiled(int(nbits))


def outgrown(trained_on: int, tokens: int) -> bool:
    """Return whether an index of `tokens` tokens needs new centroids."""
    return tokens >= _OUTGROWN_FACTOR * trained_on


def train(
    transaction: ReadTransaction,
    index_path: Path,
    records: Sequence[SegmentRecord],
    nbits: int,
    show_progress: bool | None,
) -> Codec:
    """Train a codec on a sample of the tokens of an index, decompressed where they are not float16.

    The sample bounds the memory: 2^20 tokens as float16, and one cell of the clustering as float32.
    """
    from rerank_integrations.core.index.plaid.compression import centroid_count, train_codec

    tokens = sum(record.tokens for record in records)
    _LOGGER.info("training centroids for %d tokens of %s", tokens, index_path)
    sample = _sample(transaction, index_path, records, _TOKENS_PER_CENTROID * centroid_count(tokens))
    return train_codec(sample, tokens, nbits, show_progress=show_progress)


def _sample(
    transaction: ReadTransaction, index_path: Path, records: Sequence[SegmentRecord], max_tokens: int
) -> NDArray[np.float16]:
    total = sum(record.tokens for record in records)
    wanted = min(_MAX_SAMPLE_TOKENS, max_tokens)
    generator = np.random.default_rng(0)
    pieces = []
    for record in records:
        count = min(record.tokens, -(-record.tokens * wanted // total))
        rows = np.sort(generator.choice(record.tokens, count, replace=False))
        pieces.append(_vectors(transaction, index_path, open_segment(index_path, record), rows))
    return np.concatenate(pieces)


def _vectors(
    transaction: ReadTransaction, index_path: Path, segment: Segment, rows: NDArray[np.int64]
) -> NDArray[np.float16]:
    dim = recorded_dim(transaction.meta())
    if isinstance(segment, FloatSegment):
        require_fitting(index_path, segment, None, dim)
        return segment.tokens[rows]

    record = next(record for record in transaction.codec_records() if record.name == segment.codec)
    codec = open_codec(index_path, record)
    require_fitting(index_path, segment, codec, dim)
    codes = Codes(segment.codes[rows], segment.residuals[rows], segment.scales[rows])
    return codec.decode(codes).astype(np.float16)


# Tokens of one rewritten segment, and so of a rewrite's memory: 64 MB of float16 at 128 dimensions ...
FLOAT_TOKENS = 1 << 18
# ... or 74 MB of 2-bit codes.
PLAID_TOKENS = 1 << 21

S = TypeVar("S", FloatSegment, PlaidSegment)
Written = tuple[SegmentRecord, NDArray[np.int64]]


@dataclass(frozen=True)
class _Piece(Generic[S]):
    """Some passages of one segment, by their ordinals and catalog numbers."""

    segment: S
    ordinals: NDArray[np.int64]
    pids: NDArray[np.int64]

    def lengths(self) -> NDArray[np.int32]:
        offsets = self.segment.offsets
        return (offsets[self.ordinals + 1] - offsets[self.ordinals]).astype(np.int32)

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of the passages' tokens, passage after passage."""
        lengths = self.lengths()
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows: NDArray[np.int64] = np.repeat(self.segment.offsets[self.ordinals], lengths) + within
        return rows


def rewrite(
    transaction: ReadTransaction, folders: Folders, records: Sequence[SegmentRecord], codec: Codec | None
) -> Iterator[Written]:
    """Write the living passages of segments of one kind into new segments; `commit_rewrite` puts these in their place.

    Parameters
    ----------
    codec
        The codec that made the segments, or that is to compress them; ``None`` for float16 ones that stay so.

    Yields
    ------
    tuple
        The record of a new segment, and the catalog numbers of its passages in order.

    Raises
    ------
    IndexFormatError
        If a segment is damaged: a copy gets a checksum of its own, so damage would look sound ever after.
    IndexWriteError
        If the disk is full.
    """
    dim = recorded_dim(transaction.meta())
    segments = [_open_sound(folders.path, record, codec if record.codec else None, dim) for record in records]
    alive = transaction.places_in_each([record.name for record in records])
    floats = [_piece(segment, alive) for segment in segments if isinstance(segment, FloatSegment)]
    compressed = [_piece(segment, alive) for segment in segments if isinstance(segment, PlaidSegment)]
    if codec is None:
        yield from _written(floats, FLOAT_TOKENS, lambda pieces: _write_floats(folders, pieces))
        return
    yield from _written(floats, PLAID_TOKENS, lambda pieces: _compress(folders, codec, pieces))
    yield from _written(compressed, PLAID_TOKENS, lambda pieces: _write_codes(folders, codec, pieces))


def commit_rewrite(transaction: WriteTransaction, written: Sequence[Written]) -> None:
    """Record that the passages are where `rewrite` has put them."""
    for record, pids in written:
        transaction.insert_segment(record)
        transaction.move_passages(record.name, pids.tolist())
    transaction.forget_unused()


def _piece(segment: S, alive: Mapping[str, list[tuple[int, int]]]) -> _Piece[S]:
    places = np.array(alive.get(segment.name, []), dtype=np.int64).reshape(-1, 2)
    return _Piece(segment, places[:, 0], places[:, 1])


def _written(
    pieces: Sequence[_Piece[S]], max_tokens: int, write: Callable[[list[_Piece[S]]], SegmentRecord]
) -> Iterator[Written]:
    """Write pieces together, up to `max_tokens` per segment; a longer passage has one to itself."""
    waiting: list[_Piece[S]] = []
    size = 0
    for piece in _cut(pieces, max_tokens):
        tokens = int(piece.lengths().sum())
        if waiting and size + tokens > max_tokens:
            yield write(waiting), np.concatenate([piece.pids for piece in waiting])
            waiting, size = [], 0
        waiting.append(piece)
        size += tokens
    if waiting:
        yield write(waiting), np.concatenate([piece.pids for piece in waiting])


def _cut(pieces: Sequence[_Piece[S]], max_tokens: int) -> Iterator[_Piece[S]]:
    """Cut pieces at every eighth of `max_tokens`, so that segments fill up well."""
    for piece in pieces:
        slots = np.cumsum(piece.lengths(), dtype=np.int64) // max(1, max_tokens // 8)
        for part in np.split(np.arange(len(slots)), np.flatnonzero(np.diff(slots)) + 1):
            if len(part):
                yield _Piece(piece.segment, piece.ordinals[part], piece.pids[part])


def _lengths(pieces: Sequence[_Piece[S]]) -> NDArray[np.int32]:
    return np.concatenate([piece.lengths() for piece in pieces])


def _write_floats(folders: Folders, pieces: Sequence[_Piece[FloatSegment]]) -> SegmentRecord:
    tokens = np.concatenate([piece.segment.tokens[piece.rows()] for piece in pieces])
    return write_segment(folders, {"tokens": tokens}, _lengths(pieces), None)


def _compress(folders: Folders, codec: Codec, pieces: Sequence[_Piece[FloatSegment]]) -> SegmentRecord:
    from rerank_integrations.core.index.plaid.compression import encode

    codes = joined([encode(codec, piece.segment.tokens[piece.rows()]) for piece in pieces])
    return write_compressed(folders, codec, codes, _lengths(pieces))


def _write_codes(folders: Folders, codec: Codec, pieces: Sequence[_Piece[PlaidSegment]]) -> SegmentRecord:

    blocks = []
    for piece in pieces:
        rows = piece.rows()
        segment = piece.segment
        blocks.append(Codes(segment.codes[rows], segment.residuals[rows], segment.scales[rows]))
    return write_compressed(folders, codec, joined(blocks), _lengths(pieces))


def _open_sound(path: Path, record: SegmentRecord, codec: Codec | None, dim: int) -> Segment:
    problems = list(check_segment(path, record, codec, dim))
    if problems:
        raise IndexFormatError(f"{path} is damaged: " + "; ".join(problems))
    return open_segment(path, record)
