"""When an index is compressed, when its centroids are trained anew, and on what."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.catalog import Catalog
from rerank_integrations.core.index.plaid.warming import require_compiled, start_compiling
from rerank_integrations.core.index.schema import read_meta, recorded_dim
from rerank_integrations.core.index.segments import (
    FloatSegment,
    Segment,
    SegmentRecord,
    open_segment,
    require_fitting,
)

if TYPE_CHECKING:
    from rerank_integrations.core.index.plaid.codec import Codec

_LOGGER = logging.getLogger(__name__)

# Past either, exact search takes longer than users wait: for twice as many tokens a tenth of a second in float32, half
# of that in bfloat16.
_EXACT_PASSAGES = 1 << 12
_EXACT_TOKENS = 1 << 17
# Fewer tokens make no use of centroids.
_LEAST_TOKENS = 1 << 12
# A long upsert is compressed at its end, with centroids of all of it, but no later than here: 1 GB at 128 dimensions.
_WAITING_TOKENS = 1 << 22
# Centroids serve a corpus until it is this much larger than the one that they were trained on.
_OUTGROWN = 4
# The search loops are compiled while the last three quarters of what compresses an index are encoded.
_EARLY = 4
# As many tokens a centroid as k-means needs, but no more than 256 MB of float16 at 128 dimensions.
_TOKENS_A_CENTROID = 64
_SAMPLE_TOKENS = 1 << 20


def must_compress(passages: int, tokens: int, *, finished: bool) -> bool:
    """Whether an exact index of this size is to become a PLAID index, now or when its upsert has `finished`."""
    if not finished:
        return tokens >= _WAITING_TOKENS
    return tokens >= _LEAST_TOKENS and (passages >= _EXACT_PASSAGES or tokens >= _EXACT_TOKENS)


def start_compiling_early(
    connection: sqlite3.Connection, meta: Mapping[str, str], passages: int = 0, tokens: int = 0
) -> None:
    """Have the loops compiled by another process if the index is compressed, or well on its way to be."""
    # A catalog that does not say so is damaged, which is not for this to find.
    if not meta.get("nbits", "").isdecimal():
        return
    compressed = connection.execute("SELECT 1 FROM codecs LIMIT 1").fetchone() is not None
    if compressed or must_compress(_EARLY * passages, _EARLY * tokens, finished=True):
        start_compiling(int(meta["nbits"]))


def compile_now(catalog: Catalog, index_path: Path) -> None:
    """Have the loops compiled by another process, and wait for it."""
    with catalog.read() as connection:
        nbits = read_meta(connection, index_path).get("nbits", "")
    if nbits.isdecimal():
        require_compiled(int(nbits))


def outgrown(trained_on: int, tokens: int) -> bool:
    """Whether an index of `tokens` tokens is to train new centroids."""
    return tokens >= _OUTGROWN * trained_on


def train(
    connection: sqlite3.Connection,
    index_path: Path,
    records: Sequence[SegmentRecord],
    nbits: int,
    show_progress: bool | None,
) -> Codec:
    """Train a codec on a sample of the tokens of an index, decompressed where they are not float16.

    Its memory is bounded by the sample: 2^20 tokens as float16, and one cell of the clustering as float32.
    """
    from rerank_integrations.core.index.plaid.codec import centroid_count, train_codec

    tokens = sum(record.tokens for record in records)
    _LOGGER.info("training centroids for %d tokens of %s", tokens, index_path)
    sample = _sample(connection, index_path, records, _TOKENS_A_CENTROID * centroid_count(tokens))
    return train_codec(sample, tokens, nbits, show_progress=show_progress)


def _sample(
    connection: sqlite3.Connection, index_path: Path, records: Sequence[SegmentRecord], most: int
) -> NDArray[np.float16]:
    total = sum(record.tokens for record in records)
    wanted = min(_SAMPLE_TOKENS, most)
    generator = np.random.default_rng(0)
    pieces = []
    for record in records:
        count = min(record.tokens, -(-record.tokens * wanted // total))
        rows = np.sort(generator.choice(record.tokens, count, replace=False))
        pieces.append(_vectors(connection, index_path, open_segment(index_path, record), rows))
    return np.concatenate(pieces)


def _vectors(
    connection: sqlite3.Connection, index_path: Path, segment: Segment, rows: NDArray[np.int64]
) -> NDArray[np.float16]:
    dim = recorded_dim(read_meta(connection, index_path))
    if isinstance(segment, FloatSegment):
        require_fitting(index_path, segment, None, dim)
        return segment.tokens[rows]
    from rerank_integrations.core.index.plaid.codec import Codes
    from rerank_integrations.core.index.plaid.records import codec_records, open_codec

    record = next(record for record in codec_records(connection) if record.name == segment.codec)
    codec = open_codec(index_path, record)
    require_fitting(index_path, segment, codec, dim)
    codes = Codes(segment.codes[rows], segment.residuals[rows], segment.scales[rows])
    return codec.decode(codes).astype(np.float16)
