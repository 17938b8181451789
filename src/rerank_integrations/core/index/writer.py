"""Changes to an index: each is new segments on disk, then one catalog transaction that names them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rerank_integrations.core.index.catalog import (
    Catalog,
    codec_records,
    forget_unused,
    insert_codec,
    insert_segment,
    segment_records,
)
from rerank_integrations.core.index.codecs import Codec
from rerank_integrations.core.index.compaction import (
    commit_rewrite,
    must_compress,
    outgrown,
    rewrite,
    start_compiling_early,
    train,
)
from rerank_integrations.core.index.lock import WriterLock
from rerank_integrations.core.index.records import SegmentRecord
from rerank_integrations.core.index.schema import read_meta
from rerank_integrations.core.index.segment_folders import Folders
from rerank_integrations.core.index.validation import metadata_json, sql_ids
from rerank_integrations.core.index.vector_files import open_codec, write_codec, write_compressed, write_floats
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.token_vectors import encode_documents
from rerank_integrations.core.types import Passage, PassageLike, iter_passages, to_passage
from rerank_integrations.errors import IndexFormatError, IndexWriteError, InvalidInputError, RerankError

_LOGGER = logging.getLogger(__name__)

# What one step holds in memory: its passages' texts and vectors (64 MB of float32 at 128 dimensions and 512 tokens).
_CHUNK_PASSAGES = 256
# Segments below each size are joined when there are many: each token moves as often as there are sizes.
_SMALL_TOKENS = (1 << 16, 1 << 20)
_MANY_SMALL = 16
# Within one upsert: what is to be compressed at its end need not be joined first.
_MANY_UNDER_WAY = 128


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
            for chunk in _chunks(passages):
                # All is checked before any is stored: a bad passage loses nothing of its own chunk.
                checked = [to_passage(item) for item in chunk]
                rows = [(passage, metadata_json(passage)) for passage in checked]
                self._store(rows, model)
                ids += [passage.id for passage in checked]
                self._merge_small(_MANY_UNDER_WAY)
                self._grow(show_progress, finished=False)
                bar.update(len(chunk))
        self._grow(show_progress, finished=True)
        self._merge_small(_MANY_SMALL)
        return ids

    def delete(self, ids: Sequence[str]) -> int:
        """Remove the passages with these ids in one commit; return how many there were."""
        with self._folders.commit() as connection:
            cursor = connection.execute(
                "DELETE FROM passages WHERE id IN (SELECT value FROM json_each(?))", (sql_ids(ids),)
            )
            removed = cursor.rowcount
            forget_unused(connection)
        self.sweep()
        return removed

    def compact(self) -> None:
        """Rewrite what is alive of every segment that holds dead passages or is small, a commit for each kind."""
        with self._catalog.read() as connection:
            alive = dict(connection.execute("SELECT segment, count(*) FROM passages GROUP BY segment"))
            records = segment_records(connection)
        for codec, of_kind in _by_codec(records):
            wanted = [
                record
                for record in of_kind
                if record.passages != alive.get(record.name, 0) or record.tokens < _SMALL_TOKENS[-1]
            ]
            if len(wanted) > 1 or any(record.passages != alive.get(record.name, 0) for record in wanted):
                self._rewrite(wanted, codec)
        self.sweep()
        self._catalog.reclaim()

    def sweep(self) -> None:
        """Remove the folders that no commit needs any more; see `Folders.sweep`."""
        self._folders.sweep()

    def finish(self) -> None:
        """Remove what readers needed at the last commit; where some still do, the next writer removes it."""
        with contextlib.suppress(RerankError):
            self.sweep()

    def _store(self, rows: list[tuple[Passage, str]], model: TokenEncoder) -> None:
        # Of equal ids in one call the last one stays, as if they had come one after the other.
        latest = {passage.id: (passage, metadata) for passage, metadata in rows}
        with self._catalog.read() as connection:
            known = _known_texts(connection, list(latest))
        unchanged = [row for key, row in latest.items() if known.get(key) == row[0].text]
        fresh = [row for key, row in latest.items() if known.get(key) != row[0].text]
        vectors = encode_documents(model, [passage.text for passage, _ in fresh]) if fresh else []
        record = self._write_segment(vectors, model.dim) if fresh else None
        with self._change() as connection:
            connection.executemany(
                "UPDATE passages SET metadata = ? WHERE id = ?", [(meta, p.id) for p, meta in unchanged]
            )
            if record is not None:
                _record_dim(connection, model.dim)
                insert_segment(connection, record)
                connection.executemany(
                    "INSERT INTO passages (id, text, metadata, segment, ordinal, tokens) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, "
                    "segment = excluded.segment, ordinal = excluded.ordinal, tokens = excluded.tokens",
                    [
                        (passage.id, passage.text, metadata, record.name, place, len(vectors[place]))
                        for place, (passage, metadata) in enumerate(fresh)
                    ],
                )
                forget_unused(connection)

    def _write_segment(self, vectors: Sequence[Floats], dim: int) -> SegmentRecord:
        with self._catalog.read() as connection:
            codec = self._current_codec(connection)
            _check_dim(connection, dim)
        if codec is None:
            return write_floats(self._folders, vectors, dim)
        from rerank_integrations.core.index.plaid.compression import encode

        # As float16 first: the same passage has the same codes, whether it was stored before or after the change.
        tokens = np.concatenate([np.empty((0, dim), np.float16), *(passage.astype(np.float16) for passage in vectors)])
        lengths = np.array([len(passage) for passage in vectors], dtype=np.int32)
        return write_compressed(self._folders, codec, encode(codec, tokens), lengths)

    def _current_codec(self, connection: sqlite3.Connection) -> Codec | None:
        row = connection.execute("SELECT name FROM codecs ORDER BY number DESC LIMIT 1").fetchone()
        if row is None:
            self._codec = None
        elif self._codec is None or self._codec.name != row[0]:
            self._codec = self._codec_named(connection, row[0])
        return self._codec

    def _codec_named(self, connection: sqlite3.Connection, name: str) -> Codec:

        record = next(record for record in codec_records(connection) if record.name == name)
        try:
            return open_codec(self._path, record)
        except FileNotFoundError as error:
            raise IndexFormatError(f"{self._path} is damaged: {error}") from error

    def _grow(self, show_progress: bool | None, *, finished: bool) -> None:
        with self._catalog.read() as connection:
            records = segment_records(connection)
            passages, tokens = (sum(getattr(record, key) for record in records) for key in ("passages", "tokens"))
            meta = read_meta(connection, self._path)
            start_compiling_early(connection, meta, passages, tokens)
            current = self._current_codec(connection)
            if current is None:
                due = must_compress(passages, tokens, finished=finished)
            else:
                due = outgrown(current.tokens, tokens)
            if not due:
                return
            try:
                codec = train(connection, self._path, records, int(meta["nbits"]), show_progress)
            except FileNotFoundError as error:
                raise IndexFormatError(f"{self._path} is damaged: {error}") from error

        floats = [segment for segment in records if segment.codec is None]
        with self._swept():
            codec, record = write_codec(self._folders, codec)
            with self._catalog.read() as connection:
                written = list(rewrite(connection, self._folders, floats, codec))
            with self._change() as connection:
                insert_codec(connection, record)
                commit_rewrite(connection, written)
        self.sweep()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._swept(), self._folders.commit() as connection:
            yield connection

    @contextlib.contextmanager
    def _swept(self) -> Iterator[None]:
        try:
            yield
        except RerankError:
            # What was written for it is of no use now; the disk may be full of it.
            with contextlib.suppress(RerankError):
                self.sweep()
            raise

    def _merge_small(self, many: int) -> None:
        with self._catalog.read() as connection:
            records = segment_records(connection)
        try:
            for codec, of_kind in _by_codec(records):
                for size in _SMALL_TOKENS:
                    small = [record for record in of_kind if record.tokens < size]
                    if len(small) >= many:
                        self._rewrite(small, codec)
                        break
        except (IndexFormatError, IndexWriteError):
            # The passages are stored; only the tidying has failed, and verify() tells of damage.
            _LOGGER.warning("the small segments of %s could not be joined", self._path, exc_info=True)
        self.sweep()

    def _rewrite(self, records: Sequence[SegmentRecord], codec_name: str | None) -> None:
        with self._catalog.read() as connection:
            codec = None if codec_name is None else self._codec_named(connection, codec_name)
            with self._swept():
                written = list(rewrite(connection, self._folders, records, codec))
        with self._change() as connection:
            commit_rewrite(connection, written)


def _by_codec(records: Sequence[SegmentRecord]) -> list[tuple[str | None, list[SegmentRecord]]]:
    kinds: dict[str | None, list[SegmentRecord]] = {}
    for record in records:
        kinds.setdefault(record.codec, []).append(record)
    return list(kinds.items())


def _chunks(passages: Iterable[PassageLike]) -> Iterator[list[PassageLike]]:
    iterator = iter_passages(passages)
    while chunk := list(itertools.islice(iterator, _CHUNK_PASSAGES)):
        yield chunk


def _known_texts(connection: sqlite3.Connection, ids: list[str]) -> dict[str, str]:
    query = "SELECT id, text FROM passages WHERE id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(query, (sql_ids(ids),)))


def _check_dim(connection: sqlite3.Connection, dim: int) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'dim'").fetchone()
    if row is not None and int(row[0]) != dim:
        raise InvalidInputError(f"token vectors have {dim} dimensions; this index holds {row[0]}")


def _record_dim(connection: sqlite3.Connection, dim: int) -> None:
    _check_dim(connection, dim)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('dim', ?)", (str(dim),))
