"""Changes to an index: each is new segments on disk, then one catalog transaction that names them."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index.catalog import Catalog
from rerank_integrations.core.index.ids import sql_ids
from rerank_integrations.core.index.segments import (
    Segment,
    SegmentRecord,
    check_segment,
    open_segment,
    sweep,
    write_segment,
)
from rerank_integrations.core.index.snapshot import segment_records
from rerank_integrations.core.index.storable import metadata_json, require_vectors
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.types import Passage, PassageLike, iter_passages, to_passage
from rerank_integrations.errors import IndexFormatError, IndexWriteError, InvalidInputError, RerankError

_LOGGER = logging.getLogger(__name__)

# What one step holds in memory: its passages' texts and vectors (64 MB of float32 at 128 dimensions and 512 tokens).
_CHUNK_PASSAGES = 256
# A segment that a rewrite makes: 64 MB of float16 at 128 dimensions.
_SEGMENT_TOKENS = 1 << 18
_SMALL_TOKENS = 1 << 16
_MANY_SMALL = 16


class Writer:
    """The one writer of an index; the caller holds the lock."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self._path = path
        self._catalog = catalog

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
                self._merge_small()
                bar.update(len(chunk))
        return ids

    def delete(self, ids: Sequence[str]) -> int:
        """Remove the passages with these ids in one commit; return how many there were."""
        with self._catalog.write() as connection:
            cursor = connection.execute(
                "DELETE FROM passages WHERE id IN (SELECT value FROM json_each(?))", (sql_ids(ids),)
            )
            removed = cursor.rowcount
            _forget_dead_segments(connection)
        self.sweep()
        return removed

    def compact(self) -> None:
        """Rewrite what is alive of every segment that holds dead passages or is small, in one commit."""
        with self._catalog.read() as connection:
            alive = dict(connection.execute("SELECT segment, count(*) FROM passages GROUP BY segment"))
            records = segment_records(connection)
        wanted = [
            record
            for record in records
            if record.passages != alive.get(record.name, 0) or record.tokens < _SMALL_TOKENS
        ]
        if len(wanted) > 1 or any(record.passages != alive.get(record.name, 0) for record in wanted):
            self._rewrite(wanted)
        self.sweep()
        self._catalog.reclaim()

    def sweep(self) -> None:
        """Remove the segment folders that the catalog does not name."""
        with self._catalog.read() as connection:
            keep = {record.name for record in segment_records(connection)}
        sweep(self._path, keep)

    def _store(self, rows: list[tuple[Passage, str]], model: TokenEncoder) -> None:
        # Of equal ids in one call the last one stays, as if they had come one after the other.
        latest = {passage.id: (passage, metadata) for passage, metadata in rows}
        with self._catalog.read() as connection:
            known = _known_texts(connection, list(latest))
        unchanged = [row for key, row in latest.items() if known.get(key) == row[0].text]
        fresh = [row for key, row in latest.items() if known.get(key) != row[0].text]
        vectors = model.encode_documents([passage.text for passage, _ in fresh]) if fresh else []
        require_vectors(vectors, len(fresh), model.dim if fresh else 0)
        record = write_segment(self._path, vectors, model.dim) if fresh else None
        with self._change() as connection:
            connection.executemany(
                "UPDATE passages SET metadata = ? WHERE id = ?", [(meta, p.id) for p, meta in unchanged]
            )
            if record is not None:
                _check_dim(connection, model.dim)
                _insert_segment(connection, record)
                connection.executemany(
                    "INSERT INTO passages (id, text, metadata, segment, ordinal, tokens) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, "
                    "segment = excluded.segment, ordinal = excluded.ordinal, tokens = excluded.tokens",
                    [
                        (passage.id, passage.text, metadata, record.name, place, len(vectors[place]))
                        for place, (passage, metadata) in enumerate(fresh)
                    ],
                )
                _forget_dead_segments(connection)

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._catalog.write() as connection:
                yield connection
        except RerankError:
            # The segments written for it are of no use now; the disk may be full of them.
            with contextlib.suppress(RerankError):
                self.sweep()
            raise

    def _merge_small(self) -> None:
        with self._catalog.read() as connection:
            small = [record for record in segment_records(connection) if record.tokens < _SMALL_TOKENS]
        try:
            if len(small) >= _MANY_SMALL:
                self._rewrite(small)
        except (IndexFormatError, IndexWriteError):
            # The passages are stored; only the tidying has failed, and verify() tells of damage.
            _LOGGER.warning("the small segments of %s could not be joined", self._path, exc_info=True)
        self.sweep()

    def _rewrite(self, records: Sequence[SegmentRecord]) -> None:
        with self._catalog.read() as connection:
            places = connection.execute(
                "SELECT pid, segment, ordinal FROM passages WHERE segment IN (SELECT value FROM json_each(?)) "
                "ORDER BY pid",
                (json.dumps([record.name for record in records]),),
            ).fetchall()
        written = list(self._write_moved(records, places))
        with self._change() as connection:
            for record, pids in written:
                _insert_segment(connection, record)
                connection.executemany(
                    "UPDATE passages SET segment = ?, ordinal = ? WHERE pid = ?",
                    [(record.name, place, pid) for place, pid in enumerate(pids)],
                )
            _forget_dead_segments(connection)

    def _write_moved(
        self, records: Sequence[SegmentRecord], places: list[tuple[int, str, int]]
    ) -> Iterator[tuple[SegmentRecord, list[int]]]:
        segments = {record.name: _open_sound(self._path, record) for record in records}
        dim = next((segment.tokens.shape[1] for segment in segments.values()), 0)
        pids: list[int] = []
        vectors: list[NDArray[np.float16]] = []
        size = 0
        for pid, name, ordinal in places:
            offsets = segments[name].offsets
            passage = segments[name].tokens[offsets[ordinal] : offsets[ordinal + 1]]
            if pids and size + len(passage) > _SEGMENT_TOKENS:
                yield write_segment(self._path, vectors, dim), pids
                pids, vectors, size = [], [], 0
            pids.append(pid)
            vectors.append(passage)
            size += len(passage)
        if pids:
            yield write_segment(self._path, vectors, dim), pids


def _chunks(passages: Iterable[PassageLike]) -> Iterator[list[PassageLike]]:
    iterator = iter_passages(passages)
    while chunk := list(itertools.islice(iterator, _CHUNK_PASSAGES)):
        yield chunk


def _open_sound(path: Path, record: SegmentRecord) -> Segment:
    # A copy gets a checksum of its own, so damage would look sound ever after.
    problems = list(check_segment(path, record))
    if problems:
        raise IndexFormatError(f"{path} is damaged: " + "; ".join(problems))
    return open_segment(path, record)


def _known_texts(connection: sqlite3.Connection, ids: list[str]) -> dict[str, str]:
    query = "SELECT id, text FROM passages WHERE id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(query, (sql_ids(ids),)))


def _insert_segment(connection: sqlite3.Connection, record: SegmentRecord) -> None:
    connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", astuple(record))


def _forget_dead_segments(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM segments WHERE name NOT IN (SELECT segment FROM passages)")


def _check_dim(connection: sqlite3.Connection, dim: int) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'dim'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('dim', ?)", (str(dim),))
    elif int(row[0]) != dim:
        raise InvalidInputError(f"token vectors have {dim} dimensions; this index holds {row[0]}")
