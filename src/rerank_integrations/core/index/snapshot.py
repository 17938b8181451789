"""One commit of an index, ready to search: the open segments and which passages in them are alive."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.segments import Segment, SegmentRecord, open_segment
from rerank_integrations.errors import IndexFormatError

DEAD = -1


@dataclass(frozen=True)
class LiveSegment:
    """A segment and the catalog number of each passage in it, `DEAD` for replaced and deleted ones.

    `pids`: int64, *Shape:* (passages,).
    """

    segment: Segment
    pids: NDArray[np.int64]


@dataclass(frozen=True)
class Snapshot:
    """The state after one commit; immutable, shared by all the threads that search it."""

    generation: int
    fingerprint: str
    segments: tuple[LiveSegment, ...]


def take_snapshot(
    connection: sqlite3.Connection, index_path: Path, meta: Mapping[str, str], last: Snapshot | None
) -> Snapshot:
    """Read the state that `connection`'s transaction sees; segments that `last` has open are taken over."""
    already = {live.segment.name: live.segment for live in last.segments} if last else {}
    segments = []
    for record in segment_records(connection):
        segment = already.get(record.name) or open_segment(index_path, record)
        pids = np.full(record.passages, DEAD, dtype=np.int64)
        rows = connection.execute(
            "SELECT ordinal, pid FROM passages WHERE segment = ? ORDER BY ordinal", (record.name,)
        ).fetchall()
        if rows:
            places = np.array(rows, dtype=np.int64)
            if places[:, 0].min() < 0 or places[:, 0].max() >= record.passages:
                raise IndexFormatError(f"{index_path} is damaged: passages point past segment {record.name}")
            pids[places[:, 0]] = places[:, 1]
        segments.append(LiveSegment(segment, pids))
    return Snapshot(int(meta["generation"]), meta["fingerprint"], tuple(segments))


def segment_records(connection: sqlite3.Connection) -> list[SegmentRecord]:
    """Return what the catalog says of each segment, by name."""
    query = "SELECT name, passages, tokens, tokens_crc, lengths_crc FROM segments ORDER BY name"
    return [SegmentRecord(*row) for row in connection.execute(query)]
