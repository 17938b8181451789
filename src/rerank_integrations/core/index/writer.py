"""Writing an index: each change is new segments on disk, then one catalog transaction that names them."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rerank_integrations.core.index.compaction import (
    commit_rewrite,
    must_compress,
    outgrown,
    rewrite,
    start_compiling_early,
    train,
)
from rerank_integrations.core.index.storage.catalog import Catalog, ReadTransaction, WriteTransaction
from rerank_integrations.core.index.storage.catalog_rules import recorded_dim, recorded_pool_factor
from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.filters import Sql
from rerank_integrations.core.index.storage.lock import WriterLock
from rerank_integrations.core.index.storage.records import SegmentRecord
from rerank_integrations.core.index.storage.segment_folders import Folders
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.index.storage.vector_files import open_codec, write_codec, write_compressed, write_floats
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.token_pooling import pooled
from rerank_integrations.core.token_vectors import encode_documents
from rerank_integrations.core.types import Passage, PassageLike, iter_passages, to_passage
from rerank_integrations.errors import IndexFormatError, IndexWriteError, InvalidInputError, RerankError

_LOGGER = logging.getLogger(__name__)

# Passages of one commit, whose texts and vectors are in memory: 64 MB of float32 at 128 dimensions and 512 tokens.
_CHUNK_PASSAGES = 256
# Segments below each size are joined when there are many, so a token moves as often as there are sizes.
_SMALL_TOKENS = (1 << 16, 1 << 20)
_MAX_SMALL_SEGMENTS = 16
# Within one upsert, since segments that are compressed at its end need not be joined first.
_MAX_SMALL_SEGMENTS_IN_UPSERT = 128


class Writer:
    """The one writer of an index; the caller holds the lock."""

    def __init__(self, path: Path, catalog: Catalog, lock: WriterLock) -> None:
        self._path = path
        self._catalog = catalog
        self._folders = Folders(path, catalog, lock)
        self._codec: Codec | None = None

    def upsert(self, passages: Iterable[PassageLike], model: TokenEncoder, show_progress: bool | None) -> list[str]:
        """Store `passages`, chunk by chunk, each chunk one commit; return the id of each."""
        ids: list[str] = []
        total = len(passages) if isinstance(passages, Sized) else None
        # tqdm takes None for "only on a terminal".
        disable = None if show_progress is None else not show_progress
        with tqdm(total=total, desc="indexing", unit="passage", disable=disable) as bar:
            for number, chunk in enumerate(_chunks(passages)):
                # Not after the last chunk, for which the end of the upsert does the same: most upserts have one chunk.
                if number > 0:
                    self._merge_small(_MAX_SMALL_SEGMENTS_IN_UPSERT)
                    self._grow(show_progress, finished=False)
                # All are checked before any is stored, so that a bad passage stores nothing of its chunk.
                checked = [to_passage(item) for item in chunk]
                rows = [(passage, metadata_json(passage)) for passage in checked]
                self._store(rows, model)
                ids += [passage.id for passage in checked]
                bar.update(len(chunk))
        self._grow(show_progress, finished=True)
        self._merge_small(_MAX_SMALL_SEGMENTS)
        return ids

    def delete(self, ids: Sequence[str]) -> int:
        """Remove the passages with these ids in one commit; return how many there were."""
        return self._delete(lambda transaction: transaction.delete_passages(ids))

    def delete_where(self, select: Sql | None) -> int:
        """Remove the passages that satisfy `select` in one commit; return how many there were."""
        return self._delete(lambda transaction: transaction.delete_passages_where(select))

    def _delete(self, remove: Callable[[WriteTransaction], int]) -> int:
        with self._folders.commit() as transaction:
            removed = remove(transaction)
            transaction.forget_unused()
        self.sweep()
        return removed

    def compact(self) -> None:
        """Rewrite every segment that holds dead passages or is small, in one commit per kind of segment."""
        with self._catalog.read() as transaction:
            alive = transaction.passages_per_segment()
            records = transaction.segment_records()
        for codec, of_kind in _by_codec(records):
            outdated = [
                record
                for record in of_kind
                if record.passages != alive.get(record.name, 0) or record.tokens < _SMALL_TOKENS[-1]
            ]
            if len(outdated) > 1 or any(record.passages != alive.get(record.name, 0) for record in outdated):
                self._rewrite(outdated, codec)
        self.sweep()
        self._catalog.reclaim()

    def rebuild_text_index(self) -> None:
        """Store the terms of every passage, in place of whatever is stored, in one commit."""
        _LOGGER.info("making the text index of %s", self._path)
        with self._folders.commit() as transaction:
            transaction.fill_text_index()

    def record(self, key: str, value: str | None) -> None:
        """Record a fact of the index in one commit; ``None`` removes it."""
        with self._folders.commit() as transaction:
            transaction.record(key, value)

    def sweep(self) -> None:
        """Remove the folders that no commit needs any more; see `Folders.sweep`."""
        self._folders.sweep()

    def finish(self) -> None:
        """Remove the folders that readers needed at the last commit; those still needed are left to the next writer."""
        with contextlib.suppress(RerankError):
            self.sweep()

    def _store(self, rows: list[tuple[Passage, str]], model: TokenEncoder) -> None:
        # The last passage of equal ids in one call stays, as if they had come one after the other.
        latest = {passage.id: (passage, metadata) for passage, metadata in rows}
        with self._catalog.read() as transaction:
            known = transaction.texts(list(latest))
            pool_factor = recorded_pool_factor(transaction.meta())
        unchanged = [row for key, row in latest.items() if known.get(key) == row[0].text]
        fresh = [row for key, row in latest.items() if known.get(key) != row[0].text]
        texts = [passage.text for passage, _ in fresh]
        vectors = pooled(encode_documents(model, texts), pool_factor) if fresh else []
        record = self._write_segment(vectors, model.dim) if fresh else None
        with self._change() as transaction:
            transaction.replace_metadata([(metadata, passage.id) for passage, metadata in unchanged])
            if record is not None:
                _record_dim(transaction, model.dim)
                transaction.insert_segment(record)
                transaction.upsert_passages(
                    (passage.id, passage.text, metadata, record.name, ordinal, len(vectors[ordinal]))
                    for ordinal, (passage, metadata) in enumerate(fresh)
                )
                transaction.forget_unused()

    def _write_segment(self, vectors: Sequence[Floats], dim: int) -> SegmentRecord:
        with self._catalog.read() as transaction:
            codec = self._current_codec(transaction)
            _check_dim(transaction, dim)
        if codec is None:
            return write_floats(self._folders, vectors, dim)
        from rerank_integrations.core.index.plaid.compression import encode

        # As float16 first: the same passage has the same codes, whether it was stored before or after the change.
        tokens = np.concatenate([np.empty((0, dim), np.float16), *(passage.astype(np.float16) for passage in vectors)])
        lengths = np.array([len(passage) for passage in vectors], dtype=np.int32)
        return write_compressed(self._folders, codec, encode(codec, tokens), lengths)

    def _current_codec(self, transaction: ReadTransaction) -> Codec | None:
        name = transaction.newest_codec_name()
        if name is None:
            self._codec = None
        elif self._codec is None or self._codec.name != name:
            self._codec = self._codec_named(transaction, name)
        return self._codec

    def _codec_named(self, transaction: ReadTransaction, name: str) -> Codec:

        record = next(record for record in transaction.codec_records() if record.name == name)
        try:
            return open_codec(self._path, record)
        except FileNotFoundError as error:
            raise IndexFormatError(f"{self._path} is damaged: {error}") from error

    def _grow(self, show_progress: bool | None, *, finished: bool) -> None:
        with self._catalog.read() as transaction:
            records = transaction.segment_records()
            passages, tokens = (sum(getattr(record, key) for record in records) for key in ("passages", "tokens"))
            meta = transaction.meta()
            start_compiling_early(transaction, meta, passages, tokens)
            current = self._current_codec(transaction)
            if current is None:
                due = must_compress(passages, tokens, finished=finished)
            else:
                due = outgrown(current.tokens, tokens)
            if not due:
                return
            try:
                codec = train(transaction, self._path, records, int(meta["nbits"]), show_progress)
            except FileNotFoundError as error:
                raise IndexFormatError(f"{self._path} is damaged: {error}") from error

        floats = [segment for segment in records if segment.codec is None]
        with self._swept():
            codec, record = write_codec(self._folders, codec)
            with self._catalog.read() as transaction:
                written = list(rewrite(transaction, self._folders, floats, codec))
            with self._change() as transaction:
                transaction.insert_codec(record)
                commit_rewrite(transaction, written)
        self.sweep()

    @contextlib.contextmanager
    def _change(self) -> Iterator[WriteTransaction]:
        with self._swept(), self._folders.commit() as transaction:
            yield transaction

    @contextlib.contextmanager
    def _swept(self) -> Iterator[None]:
        try:
            yield
        except RerankError:
            # The folders written for it are useless now, and the disk may be full of them.
            with contextlib.suppress(RerankError):
                self.sweep()
            raise

    def _merge_small(self, max_segments: int) -> None:
        with self._catalog.read() as transaction:
            records = transaction.segment_records()
        try:
            for codec, of_kind in _by_codec(records):
                for size in _SMALL_TOKENS:
                    small = [record for record in of_kind if record.tokens < size]
                    if len(small) >= max_segments:
                        self._rewrite(small, codec)
                        break
        except (IndexFormatError, IndexWriteError):
            # The passages are stored; only the tidying has failed, and verify() reports damage.
            _LOGGER.warning("the small segments of %s could not be joined", self._path, exc_info=True)
        self.sweep()

    def _rewrite(self, records: Sequence[SegmentRecord], codec_name: str | None) -> None:
        with self._catalog.read() as transaction:
            codec = None if codec_name is None else self._codec_named(transaction, codec_name)
            with self._swept():
                written = list(rewrite(transaction, self._folders, records, codec))
        with self._change() as transaction:
            commit_rewrite(transaction, written)


def _by_codec(records: Sequence[SegmentRecord]) -> list[tuple[str | None, list[SegmentRecord]]]:
    kinds: dict[str | None, list[SegmentRecord]] = {}
    for record in records:
        kinds.setdefault(record.codec, []).append(record)
    return list(kinds.items())


def _chunks(passages: Iterable[PassageLike]) -> Iterator[list[PassageLike]]:
    iterator = iter_passages(passages)
    while chunk := list(itertools.islice(iterator, _CHUNK_PASSAGES)):
        yield chunk


def _check_dim(transaction: ReadTransaction, dim: int) -> None:
    recorded = recorded_dim(transaction.meta())
    if recorded not in (0, dim):
        raise InvalidInputError(f"token vectors have {dim} dimensions; this index holds {recorded}")


def _record_dim(transaction: WriteTransaction, dim: int) -> None:
    _check_dim(transaction, dim)
    transaction.record_dim(dim)
