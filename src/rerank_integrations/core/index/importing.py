"""Import of an index that colbert-ai made: its codes and residuals are taken over bit for bit, in one commit."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index.colbert_ai import (
    Chunk,
    ColbertAICodec,
    ColbertAIIndex,
    Collection,
    codebook,
    open_colbert_ai,
    read_collection,
)
from rerank_integrations.core.index.colbert_index import ColBERTIndex
from rerank_integrations.core.index.compaction import PLAID_TOKENS
from rerank_integrations.core.index.folder import index_folder, make_folder, release, require_free
from rerank_integrations.core.index.model_record import model_record
from rerank_integrations.core.index.storage import lock
from rerank_integrations.core.index.storage.array_rules import codec_problem
from rerank_integrations.core.index.storage.catalog import FILENAME, Catalog, NewRow, WriteTransaction
from rerank_integrations.core.index.storage.codecs import Codec, Codes, joined
from rerank_integrations.core.index.storage.records import SegmentRecord
from rerank_integrations.core.index.storage.segment_folders import Folders
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.index.storage.vector_files import write_codec, write_compressed
from rerank_integrations.core.models import TokenEncoder, as_colbert_model
from rerank_integrations.errors import IndexFormatError, ModelMismatchError, RerankError

_LOGGER = logging.getLogger(__name__)

# Room in the unit of the scales for later passages, whose vectors may be shorter.
_HEADROOM = 1.25
# No model makes vectors this many times shorter than centroids; they must not make the unit coarse for all others.
_MAX_SHORTENING = 16

# The catalog's key for the values that an export writes exactly as colbert-ai stored them.
THEIRS = "colbert_ai"


class _Piece(NamedTuple):
    """Consecutive passages of a chunk: their tokens, their numbers and their token counts."""

    codes: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    pids: NDArray[np.int64]
    lengths: NDArray[np.int32]


class _Written(NamedTuple):
    """A segment, and the passages in it."""

    record: SegmentRecord
    pids: NDArray[np.int64]
    lengths: NDArray[np.int32]


def import_colbert(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    model: str | Path | TokenEncoder,
    *,
    collection: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    show_progress: bool | None = None,
) -> ColBERTIndex:
    """Make an index of one that colbert-ai 0.2 or RAGatouille made, and open it for writing.

    Nothing is encoded again and colbert-ai is not needed: centroids, codes and residuals are taken over bit for bit, so
    scores are those of colbert-ai's own decompression. All files are checked first, then there is one commit: if it
    fails or is killed, no index stands at `path`, or the one that stood there.

    Parameters
    ----------
    source
        The folder with ``metadata.json``, ``centroids.pt`` and ``0.codes.pt``; only read.
    path
        The new index's folder, made if absent.
    model
        A `ColBERTModel`, or the name or path of one: the checkpoint that `source` was made with. Only its dimensions
        can be compared with those of the vectors; another model of as many would find nonsense.
    collection
        The passages that were indexed, as ``.tsv`` or ``.json``; by default ``collection.json`` or ``collection.tsv``
        in `source`. With RAGatouille's ``pid_docid_map.json`` there, ids and metadata are those of its documents; else
        ids are the passage numbers.
    overwrite
        Put the new index in the place of one that stands at `path`.
    show_progress
        A progress bar; by default only on a terminal.

    Raises
    ------
    IndexFormatError
        If `source` is not such an index, is damaged, has more than 65,536 centroids, or does not fit the collection; or
        if `path` holds something that is not an index.
    InvalidInputError
        If there is no collection.
    ModelMismatchError
        If the model's vectors have another number of dimensions.
    IndexExistsError
        If an index stands at `path` and `overwrite` is false.
    IndexLockedError
        If another writer has it.
    IndexWriteError
        If the operating system refuses a write.
    """
    require_free(index_folder(path), overwrite)
    theirs = open_colbert_ai(source)
    encoder: TokenEncoder = as_colbert_model(model)
    _require_fitting(theirs, encoder)
    passages = read_collection(theirs, collection)
    codec = _checked_codec(theirs, show_progress)
    _LOGGER.info("%s was made with the checkpoint %r; importing it for %r", source, theirs.checkpoint, encoder.name)
    meta = {
        "model": model_record(encoder),
        "fingerprint": encoder.fingerprint,
        "nbits": str(theirs.codec.nbits),
        "dim": str(theirs.codec.dim),
        THEIRS: _codec_facts(theirs.codec),
    }
    folder = make_folder(path)
    writer_lock = lock.acquire(folder)
    catalog = Catalog(folder / FILENAME, read_only=False)
    try:
        # Checked again under the lock, since two processes may have come this far.
        require_free(folder, overwrite)
        # This makes the catalog's file: beside a catalog without tables, files that a kill leaves are in nobody's way.
        with catalog.read():
            pass
        folders = Folders(folder, catalog, writer_lock)
        with _swept(folders):
            _write_all(catalog, meta, folders, theirs, codec, passages, show_progress)
        return ColBERTIndex(folder, encoder, catalog, writer_lock, temporary=False)
    except BaseException:
        release(catalog, writer_lock, None, os.getpid())
        raise


def _codec_facts(codec: ColbertAICodec) -> str:
    buckets = {name: getattr(codec, name).tolist() for name in ("bucket_weights", "bucket_cutoffs")}
    return json.dumps({**buckets, "avg_residual": codec.avg_residual})


def _require_fitting(theirs: ColbertAIIndex, encoder: TokenEncoder) -> None:
    if theirs.codec.dim != encoder.dim:
        raise ModelMismatchError(
            f"{theirs.path} holds vectors of {theirs.codec.dim} dimensions, made with the checkpoint "
            f"{theirs.checkpoint!r}; {encoder.name!r} makes vectors of {encoder.dim}"
        )
    if theirs.num_tokens == 0:
        raise IndexFormatError(f"{theirs.path} holds no tokens; expected some")


def _checked_codec(theirs: ColbertAIIndex, show_progress: bool | None) -> Codec:
    """Read and check all tokens, and choose the unit of the scales by them."""
    from rerank_integrations.core.index.plaid.compression import vector_lengths

    with np.errstate(over="ignore"):
        centroids = theirs.codec.centroids.astype(np.float16).astype(np.float32)
    if not np.isfinite(centroids).all():
        raise IndexFormatError(f"{theirs.path} has centroids that are no float16 numbers; expected such")
    book = codebook(theirs.codec.bucket_weights, theirs.codec.nbits)
    shortest = np.inf
    with _bar(theirs, "checking", show_progress) as bar:
        for chunk in theirs.chunks():
            shortest = min(
                shortest, float(vector_lengths(centroids, book, chunk.codes, chunk.residuals).min(initial=np.inf))
            )
            bar.update(len(chunk.lengths))
    shortest = max(shortest, float(np.linalg.norm(centroids, axis=1).max()) / _MAX_SHORTENING, 1e-6)
    step = _HEADROOM / shortest / np.iinfo(np.uint16).max
    identity = np.eye(theirs.codec.dim, dtype=np.float32)
    codec = Codec("", centroids, book, identity, step, whole=True, tokens=theirs.num_tokens)
    if problem := codec_problem(codec):
        raise IndexFormatError(f"{theirs.path} cannot be searched: {problem}")
    return codec


def _write_all(
    catalog: Catalog,
    meta: dict[str, str],
    folders: Folders,
    theirs: ColbertAIIndex,
    codec: Codec,
    passages: Collection,
    show_progress: bool | None,
) -> None:

    codec, codec_record = write_codec(folders, codec)
    with _bar(theirs, "importing", show_progress) as bar:
        written = list(_segments(folders, theirs, codec, passages.ids, bar))

    def fill(transaction: WriteTransaction) -> None:
        transaction.insert_codec(codec_record)
        for segment in written:
            transaction.insert_segment(segment.record)
        transaction.insert_passages(_rows(passages, written))

    catalog.create(meta, fill)


def _segments(
    folders: Folders, theirs: ColbertAIIndex, codec: Codec, known: dict[int, str], bar: tqdm[Any]
) -> Iterator[_Written]:
    """Write the tokens as segments, each with as many as fit."""
    waiting: list[_Piece] = []
    size = 0
    for chunk in theirs.chunks():
        for piece in _pieces(chunk, known) if len(chunk.lengths) else ():
            if waiting and size + len(piece.codes) > PLAID_TOKENS:
                yield _write(folders, codec, waiting)
                waiting, size = [], 0
            waiting.append(piece)
            size += len(piece.codes)
            bar.update(len(piece.pids))
    yield _write(folders, codec, waiting)


def _pieces(chunk: Chunk, known: dict[int, str]) -> Iterator[_Piece]:
    """Cut a chunk at every eighth of a segment, without the passages that were removed, which have no tokens."""
    ends = np.cumsum(chunk.lengths, dtype=np.int64)
    bounds = [0, *(np.flatnonzero(np.diff(ends // (PLAID_TOKENS // 8))) + 1).tolist(), len(ends)]
    for first, last in itertools.pairwise(bounds):
        tokens = slice(int(ends[first] - chunk.lengths[first]), int(ends[last - 1]))
        pids = np.arange(chunk.first_pid + first, chunk.first_pid + last)
        there = np.array([pid in known for pid in pids.tolist()])
        yield _Piece(
            chunk.codes[tokens].astype(np.uint16),
            chunk.residuals[tokens],
            pids[there],
            chunk.lengths[first:last][there],
        )


def _write(folders: Folders, codec: Codec, pieces: Sequence[_Piece]) -> _Written:

    codes = joined([_codes(codec, piece) for piece in pieces])
    pids = np.concatenate([piece.pids for piece in pieces])
    lengths = np.concatenate([piece.lengths for piece in pieces])
    return _Written(write_compressed(folders, codec, codes, lengths), pids, lengths)


def _codes(codec: Codec, piece: _Piece) -> Codes:
    from rerank_integrations.core.index.plaid.compression import vector_lengths

    lengths = vector_lengths(codec.centroids, codec.codebook, piece.codes, piece.residuals)
    scales = np.rint(1 / (np.maximum(lengths, 1e-6) * codec.step))
    return Codes(piece.codes, piece.residuals, np.minimum(scales, np.iinfo(np.uint16).max).astype(np.uint16))


def _rows(passages: Collection, written: Sequence[_Written]) -> Iterator[NewRow]:
    locations = (
        (pid, segment.record.name, ordinal, tokens)
        for segment in written
        for ordinal, (pid, tokens) in enumerate(zip(segment.pids.tolist(), segment.lengths.tolist(), strict=True))
    )
    for (pid, passage), (expected, name, ordinal, tokens) in zip(passages, locations, strict=True):
        assert pid == expected, (pid, expected)
        yield passage.id, passage.text, metadata_json(passage), name, ordinal, tokens


@contextlib.contextmanager
def _swept(folders: Folders) -> Iterator[None]:
    """Remove afterwards the files that the catalog does not name: the old index's, or those of a failed import."""
    try:
        yield
    finally:
        with contextlib.suppress(RerankError):
            folders.sweep()


def _bar(theirs: ColbertAIIndex, what: str, show_progress: bool | None) -> tqdm[Any]:
    # tqdm takes None for "only on a terminal".
    disable = None if show_progress is None else not show_progress
    return tqdm(total=theirs.num_passages, desc=what, unit="passage", disable=disable)
