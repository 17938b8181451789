"""One commit of an index, ready to search: its open segments, and which of their passages are alive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.bm25 import BM25
from rerank_integrations.core.index.storage.catalog import Commit, ReadTransaction
from rerank_integrations.core.index.storage.catalog_rules import recorded_dim
from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.records import SegmentRecord
from rerank_integrations.core.index.storage.segments import (
    DEAD,
    FloatSegment,
    Group,
    Ordinals,
    Part,
    PlaidSegment,
    S,
    Segment,
    Selection,
)
from rerank_integrations.core.index.storage.vector_files import open_codec, open_segment, require_fitting
from rerank_integrations.errors import IndexFormatError


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state after one commit, shared by all threads that search; immutable but for its memory of selections."""

    commit: Commit
    fingerprint: str
    everything: Selection
    alive: Mapping[str, int]
    chosen: dict[str, Selection] = field(default_factory=dict)
    # Made by the first search that needs it.
    texts: list[BM25] = field(default_factory=list)


def take_snapshot(
    transaction: ReadTransaction, index_path: Path, meta: Mapping[str, str], last: Snapshot | None
) -> Snapshot:
    """Read the state that `transaction` sees; segments that `last` has open are taken over where they are unchanged.

    Raises
    ------
    FileNotFoundError
        If a folder is gone: damage, or another index stands there now.
    IndexFormatError
        If the index is damaged.
    """
    commit = transaction.commit()
    if last is not None and (last.commit.identity, last.commit.index_id) != (commit.identity, commit.index_id):
        # A copy of an index has folders of the same names, of which other passages are alive.
        last = None
    if unnamed := transaction.unnamed_segments():
        raise IndexFormatError(f"{index_path} is damaged: its catalog lacks the segment {unnamed[0]} of some passages")
    known = {part.segment.name: part for part in _parts(last.everything)} if last else {}
    alive = transaction.passages_per_segment()
    records = transaction.segment_records()
    floats: list[Part[FloatSegment]] = []
    compressed: dict[str, list[Part[PlaidSegment]]] = defaultdict(list)
    for record in records:
        part = known.get(record.name)
        # A segment's passages only ever die, so the same count is the same passages.
        if part is None or last is None or last.alive.get(record.name) != alive.get(record.name):
            segment = part.segment if part else open_segment(index_path, record)
            part = _part(transaction, record, segment)
        if isinstance(part.segment, FloatSegment):
            floats.append(part)
        else:
            compressed[part.segment.codec].append(part)
    codecs = {group.codec.name: group.codec for group in last.everything.groups} if last else {}
    groups = [
        Group(codec, tuple(compressed[codec.name])) for codec in _codecs(transaction, index_path, compressed, codecs)
    ]
    _require_fitting(index_path, floats, groups, recorded_dim(meta))
    return Snapshot(commit, meta["fingerprint"], Selection(tuple(floats), tuple(groups)), alive)


def narrowed(snapshot: Snapshot, wanted: Iterable[tuple[str, int]]) -> Selection:
    """Restrict a snapshot to passages, each by its segment's name and its ordinal there."""
    by_segment: dict[str, list[int]] = defaultdict(list)
    for name, ordinal in wanted:
        by_segment[name].append(ordinal)
    everything = snapshot.everything
    return Selection(
        tuple(_narrowed(part, by_segment[part.segment.name]) for part in everything.floats),
        tuple(
            Group(group.codec, tuple(_narrowed(part, by_segment[part.segment.name]) for part in group.parts))
            for group in everything.groups
        ),
    )


def _narrowed(part: Part[S], ordinals: Sequence[int]) -> Part[S]:
    wanted = np.array(ordinals) if ordinals else np.empty(0, dtype=np.int64)
    return _part_of(part.segment, part.pids, _sound_ordinals(part.segment, wanted))


def _sound_ordinals(segment: Segment, ordinals: NDArray[np.int64]) -> Ordinals:
    """Return ordinals in the order that the search loops rely on: rising, without repetition, within the segment.

    A damaged catalog may give others, since SQLite's index of ordinals and the rows themselves may differ.
    """
    sound = ordinals.dtype.kind == "i"
    if sound and len(ordinals):
        ordinals = np.sort(ordinals)
        sound = ordinals[0] >= 0 and ordinals[-1] < len(segment.offsets) - 1 and bool((np.diff(ordinals) > 0).all())
    if not sound:
        raise IndexFormatError(f"the catalog is damaged: passages point past segment {segment.name}, or share a place")
    return ordinals.astype(np.int32)


def _part_of(segment: S, pids: NDArray[np.int64], ordinals: Ordinals) -> Part[S]:
    tokens = int((segment.offsets[ordinals + 1] - segment.offsets[ordinals]).sum())
    return Part(segment, pids, ordinals, tokens)


def _parts(selection: Selection) -> Iterable[Part[FloatSegment] | Part[PlaidSegment]]:
    yield from selection.floats
    for group in selection.groups:
        yield from group.parts


def _part(
    transaction: ReadTransaction, record: SegmentRecord, segment: Segment
) -> Part[FloatSegment] | Part[PlaidSegment]:
    pids = np.full(record.passages, DEAD, dtype=np.int64)
    rows = transaction.places_in(record.name)
    # Without a dtype, which would turn other numbers into whole ones.
    numbers = np.array(rows) if rows else np.empty((0, 2), dtype=np.int64)
    alive = _sound_ordinals(segment, numbers[:, 0])
    pids[numbers[:, 0]] = numbers[:, 1]
    if isinstance(segment, FloatSegment):
        return _part_of(segment, pids, alive)
    return _part_of(segment, pids, alive)


def _require_fitting(index_path: Path, floats: Iterable[Part[FloatSegment]], groups: Iterable[Group], dim: int) -> None:
    for part in floats:
        require_fitting(index_path, part.segment, None, dim)
    for group in groups:
        for compressed in group.parts:
            require_fitting(index_path, compressed.segment, group.codec, dim)


def _codecs(
    transaction: ReadTransaction, index_path: Path, wanted: Mapping[str, object], known: Mapping[str, Codec]
) -> list[Codec]:
    if not wanted:
        return []

    codecs = [
        known.get(record.name) or open_codec(index_path, record)
        for record in transaction.codec_records()
        if record.name in wanted
    ]
    if missing := set(wanted) - {codec.name for codec in codecs}:
        raise IndexFormatError(f"{index_path} is damaged: its catalog lacks the codecs {sorted(missing)}")
    return codecs
