"""Export of an index to the format of colbert-ai."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index.colbert_ai import (
    MAX_CHUNK_PASSAGES,
    ColbertAICodec,
    ColbertAIWriter,
    pack,
    quantile_buckets,
)
from rerank_integrations.core.index.colbert_ai.codec import require_dim
from rerank_integrations.core.index.colbert_ai.write import require_vacant
from rerank_integrations.core.index.colbert_index import ColBERTIndex, as_index
from rerank_integrations.core.index.compaction import PLAID_TOKENS
from rerank_integrations.core.index.folder import index_folder
from rerank_integrations.core.index.importing import THEIRS
from rerank_integrations.core.index.reader import Reader
from rerank_integrations.core.index.snapshot import Snapshot
from rerank_integrations.core.index.storage.catalog import FILENAME, Catalog, ReadTransaction
from rerank_integrations.core.index.storage.codecs import Codec, Codes
from rerank_integrations.core.index.storage.segments import FloatSegment, Group, Part, PlaidSegment, Selection
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError, InvalidInputError

Rows = NDArray[np.int64]

# The number of tokens decompressed at a time: 16 MB of float32 at 128 dimensions.
_BLOCK = 1 << 15
# The number of vectors that centroids are trained on, 256 MB of float16 at 128 dimensions, and the buckets.
_CENTROID_SAMPLE = 1 << 20
_BUCKET_SAMPLE = 1 << 15


@dataclass(frozen=True, eq=False)
class _Source:
    """The passages of one segment that are alive; `codec` is ``None`` for float16 vectors."""

    part: Part[FloatSegment] | Part[PlaidSegment]
    codec: Codec | None

    def bounds(self) -> tuple[Rows, Rows]:
        """Return the row at which each passage's tokens start, and the row at which they end."""
        offsets, ordinals = self.part.segment.offsets, self.part.ordinals
        return offsets[ordinals], offsets[ordinals + 1]

    def vectors(self, rows: Rows) -> Floats:
        """Return unit vectors, since colbert-ai has no others."""
        segment = self.part.segment
        if isinstance(segment, FloatSegment):
            vectors: Floats = segment.tokens[rows].astype(np.float32)
        else:
            assert self.codec is not None
            vectors = self.codec.decode(Codes(segment.codes[rows], segment.residuals[rows], segment.scales[rows]))
        return _unit(vectors)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Passages of one segment: the rows of their tokens, and the token counts and catalog numbers of the passages."""

    source: _Source
    rows: Rows
    lengths: NDArray[np.int32]
    pids: list[int]


class _Encoder(Protocol):
    """Interface that gives colbert-ai's codes and residuals of stored tokens."""

    codec: ColbertAICodec

    def encode(self, source: _Source, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.uint8]]: ...


def export_colbert(
    index: ColBERTIndex | str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    show_progress: bool | None = None,
) -> Path:
    """Write an index as a folder that colbert-ai's ``Searcher`` and ``IndexScorer`` open.

    All of it comes from one commit, whatever is written meanwhile; the folder appears when it is whole. Texts, ids and
    metadata go to ``collection.tsv``, ``collection.json`` and RAGatouille's ``pid_docid_map.json`` and
    ``docid_metadata_map.json``; passages are numbered anew, deleted ones left out.

    The codes and residuals of an imported index are written bit for bit. Those of any other are made from its vectors
    (or from what its codec kept of them) with as many bits, after the quantiles that colbert-ai takes, so the export
    ranks a little less truly than the index. Memory: 2^21 tokens' codes, and a sample of 2^20 float16 vectors.

    Parameters
    ----------
    index
        An open index, or the path of one.
    target
        The folder to make; an empty one may stand there.
    show_progress
        A progress bar; by default only on a terminal.

    Returns
    -------
    pathlib.Path
        The absolute path of `target`.

    Raises
    ------
    IndexExistsError
        If something other than an empty folder stands at `target`.
    InvalidInputError
        If the index holds no tokens, or its dimensions do not fill bytes as colbert-ai packs them.
    IndexWriteError
        If the operating system refuses a write; nothing is left behind.
    """
    folder = index_folder(target)
    require_vacant(folder)
    if not isinstance(index, ColBERTIndex):
        with as_index(index) as opened:
            return export_colbert(opened, folder, show_progress=show_progress)
    # A closed or damaged index raises its error here.
    name = index.stats().model

    def run(transaction: ReadTransaction, snapshot: Snapshot) -> None:
        sources = _sources(snapshot.everything)
        encoder = _encoder(transaction, index.path, snapshot.everything, sources, show_progress)
        passages = sum(len(source.part.ordinals) for source in sources)
        # tqdm takes None for "only on a terminal".
        disable = None if show_progress is None else not show_progress
        with (
            ColbertAIWriter(folder, encoder.codec, name) as writer,
            tqdm(total=passages, desc="exporting", unit="passage", disable=disable) as bar,
        ):
            for chunk in _chunks(sources):
                codes, residuals = _encoded(encoder, chunk)
                writer.add(codes, residuals, chunk.lengths, transaction.passages_numbered(chunk.pids))
                bar.update(len(chunk.pids))

    with closing(Catalog(index.path / FILENAME, read_only=True)) as catalog:
        Reader(index.path, catalog).at_one_commit(run, None)
    return folder


def _sources(everything: Selection) -> list[_Source]:
    compressed = [_Source(part, group.codec) for group in everything.groups for part in group.parts]
    return [*(_Source(part, None) for part in everything.floats), *compressed]


def _encoder(
    transaction: ReadTransaction,
    index_path: Path,
    everything: Selection,
    sources: Sequence[_Source],
    show_progress: bool | None,
) -> _Encoder:
    tokens = sum(source.part.tokens for source in sources)
    if tokens == 0:
        raise InvalidInputError(f"{index_path} holds no tokens, and colbert-ai opens no such index; expected some")
    meta = transaction.meta()
    require_dim(int(meta["dim"]), int(meta["nbits"]), f"the dimension of {index_path}", InvalidInputError)
    if len(everything.groups) == 1 and not everything.floats and everything.groups[0].codec.whole:
        return _Verbatim(everything.groups[0], _recorded_buckets(meta, index_path))
    return _Reencoder(_centroids(everything, sources, tokens, show_progress), int(meta["nbits"]), sources)


def _recorded_buckets(meta: Mapping[str, str], index_path: Path) -> tuple[Floats, Floats, float]:
    """Return the bucket weights and cutoffs and the mean residual that an import has recorded."""
    try:
        recorded = json.loads(meta[THEIRS])
        weights, cutoffs = (np.array(recorded[key], dtype=np.float32) for key in ("bucket_weights", "bucket_cutoffs"))
        average = float(recorded["avg_residual"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise IndexFormatError(f"{index_path} is damaged: its catalog records no buckets of colbert-ai") from error
    return weights, cutoffs, average


class _Verbatim:
    """Encoder of an imported index; it copies the imported codes and residuals."""

    def __init__(self, group: Group, buckets: tuple[Floats, Floats, float]) -> None:
        self.codec = ColbertAICodec(group.codec.nbits, group.codec.centroids, *buckets)

    def encode(self, source: _Source, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        segment = source.part.segment
        assert isinstance(segment, PlaidSegment)
        return segment.codes[rows].astype(np.int32), segment.residuals[rows]


class _Reencoder:
    """Encoder of every other index; it compresses the vectors again by colbert-ai's codec."""

    def __init__(self, centroids: Floats, nbits: int, sources: Sequence[_Source]) -> None:
        from rerank_integrations.core.index.plaid.clustering import NearestCentroid

        # Unit vectors, so that the nearest has the largest product, rounded to float16 as colbert-ai will read them.
        self._centroids = _unit(centroids).astype(np.float16).astype(np.float32)
        self._nearest = NearestCentroid(self._centroids)
        _, residuals = self._residuals(_sample(sources, _BUCKET_SAMPLE).astype(np.float32))
        cutoffs, weights = quantile_buckets(residuals, nbits)
        self.codec = ColbertAICodec(nbits, self._centroids, weights, cutoffs, float(np.abs(residuals).mean()))

    def encode(self, source: _Source, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        codes, residuals = self._residuals(source.vectors(rows))
        levels = np.searchsorted(self.codec.bucket_cutoffs, residuals).astype(np.uint8)
        return codes, pack(levels, self.codec.nbits)

    def _residuals(self, vectors: Floats) -> tuple[NDArray[np.int32], Floats]:
        codes = self._nearest.find(vectors).astype(np.int32)
        return codes, vectors - self._centroids[codes]


def _centroids(everything: Selection, sources: Sequence[_Source], tokens: int, show_progress: bool | None) -> Floats:
    from rerank_integrations.core.index.plaid.clustering import train_centroids
    from rerank_integrations.core.index.plaid.compression import centroid_count

    if everything.groups:
        newest = everything.groups[-1].codec
        centroids: Floats = newest.centroids @ newest.rotation.T
        return centroids
    return train_centroids(_sample(sources, _CENTROID_SAMPLE), centroid_count(tokens), show_progress=show_progress)


def _sample(sources: Sequence[_Source], size: int) -> NDArray[np.float16]:
    """Return a sample of about `size` vectors, or all if there are fewer."""
    total = sum(source.part.tokens for source in sources)
    generator = np.random.default_rng(0)
    taken = []
    for source in sources:
        rows = _rows(*source.bounds())
        count = min(len(rows), -(-len(rows) * size // total))
        chosen = np.sort(generator.choice(rows, count, replace=False))
        blocks = (chosen[start : start + _BLOCK] for start in range(0, count, _BLOCK))
        taken += [source.vectors(block).astype(np.float16) for block in blocks]
    return np.concatenate(taken)


def _chunks(sources: Sequence[_Source]) -> Iterator[_Chunk]:
    """Cut the passages into chunks of at most 2^21 tokens and 25,000 passages."""
    for source in sources:
        starts, ends = source.bounds()
        lengths = ends - starts
        pids = source.part.pids[source.part.ordinals].tolist()
        first = 0
        while first < len(pids):
            fitting = int(np.searchsorted(np.cumsum(lengths[first:]), PLAID_TOKENS, side="right"))
            last = min(first + max(1, fitting), first + MAX_CHUNK_PASSAGES, len(pids))
            rows = _rows(starts[first:last], ends[first:last])
            yield _Chunk(source, rows, lengths[first:last].astype(np.int32), pids[first:last])
            first = last


def _rows(starts: Rows, ends: Rows) -> Rows:
    """Return the rows from each start up to its end, one after the other."""
    lengths = ends - starts
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _encoded(encoder: _Encoder, chunk: _Chunk) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    codec = encoder.codec
    codes = np.empty(len(chunk.rows), dtype=np.int32)
    residuals = np.empty((len(chunk.rows), codec.residual_bytes), dtype=np.uint8)
    for start in range(0, len(chunk.rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        codes[block], residuals[block] = encoder.encode(chunk.source, chunk.rows[block])
    return codes, residuals


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
