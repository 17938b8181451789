"""Reading an index: search and look-up, each answer from one commit."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.concurrency.lanes import turns
from rerank_integrations.core.index.exact import exact_candidates, stored_scores
from rerank_integrations.core.index.plaid.search_options import SearchOptions
from rerank_integrations.core.index.snapshot import Snapshot, narrowed, take_snapshot
from rerank_integrations.core.index.storage.catalog import Catalog, Commit, ReadTransaction
from rerank_integrations.core.index.storage.filters import Sql, compile_selection, names_ids
from rerank_integrations.core.index.storage.segments import Selection
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import best_first
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import IndexFormatError, ModelMismatchError

T = TypeVar("T")

# Filters whose passages are remembered until the next commit; an application repeats few of them.
_MAX_REMEMBERED_FILTERS = 64
# Ids that are in memory at a time while the caller iterates over all of them.
_IDS_PER_BATCH = 1024


class Reader:
    """Searches and look-ups, which share the open segments of the last commit that any of them saw."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self._path = path
        self._catalog = catalog
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._keep = True

    def search(
        self,
        queries: Sequence[Floats],
        k: int,
        select: Sql | None,
        fingerprint: str,
        options: SearchOptions,
        device: str = "cpu",
    ) -> list[list[Hit]]:
        """Return the best `k` of the passages that satisfy `select`, for each query; `k` is at least 1."""

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[list[Hit]]:
            selection = _selection(transaction, snapshot, select)
            candidates = exact_candidates(selection.floats, queries, k)
            for group in selection.groups:
                from rerank_integrations.core.index.plaid.search import search_group

                candidates = [
                    {**scores, **search_group(group, query, k, options, device)}
                    for scores, query in zip(candidates, queries, strict=True)
                ]
            return [_hits(transaction, scores, k) for scores in candidates]

        with turns():
            return self.at_one_commit(run, fingerprint)

    def rerank(
        self, query: Floats, ids: Sequence[str], k: int | None, fingerprint: str, device: str = "cpu"
    ) -> list[Hit]:
        """Return the passages with these `ids`, best first."""
        select = compile_selection(None, ids)

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[Hit]:
            selection = _selection(transaction, snapshot, select)
            scores = stored_scores(selection.floats, query)
            for group in selection.groups:
                from rerank_integrations.core.index.plaid import search

                scores.update(search.stored_scores(group, query, device))
            return _hits(transaction, scores, k)

        return self.at_one_commit(run, fingerprint)

    def vectors(self, ids: Sequence[str]) -> dict[str, Floats]:
        """Return the token vectors of the passages with these `ids`; unknown ids are absent."""
        select = compile_selection(None, ids)

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> dict[str, Floats]:
            selection = _selection(transaction, snapshot, select)
            by_pid = {
                int(part.pids[ordinal]): part.segment.vectors(int(ordinal))
                for part in selection.floats
                for ordinal in part.ordinals
            }
            for group in selection.groups:
                for compressed in group.parts:
                    for ordinal in compressed.ordinals:
                        codes = compressed.segment.passage(int(ordinal))
                        by_pid[int(compressed.pids[ordinal])] = group.codec.decode(codes)
            named = transaction.ids_numbered(list(by_pid))
            return {named[pid]: vectors for pid, vectors in by_pid.items()}

        return self.at_one_commit(run, None)

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """Return the passages with these `ids`, in that order; unknown ids are omitted."""
        with self._catalog.read() as transaction:
            passages = transaction.passages(ids)
        return [passages[passage_id] for passage_id in ids if passage_id in passages]

    def get_where(self, select: Sql | None, limit: int | None, offset: int) -> list[Passage]:
        """Return the passages that satisfy `select`, in the order in which their ids were added."""
        with self._catalog.read() as transaction:
            return transaction.passages_where(select, limit, offset)

    def ids(self, select: Sql | None) -> Iterator[str]:
        """Yield the id of each passage that satisfies `select`, a batch per transaction."""
        last = -1
        while True:
            # Not one transaction for all: while the caller works, the writer could remove nothing.
            with self._catalog.read() as transaction:
                batch = transaction.ids_after(last, select, _IDS_PER_BATCH)
            if not batch:
                return
            yield from (passage_id for _, passage_id in batch)
            last = batch[-1][0]

    def count(self, select: Sql | None = None) -> int:
        """Return how many passages satisfy `select`."""
        with self._catalog.read() as transaction:
            return transaction.passage_count(select)

    def at_one_commit(self, run: Callable[[ReadTransaction, Snapshot], T], fingerprint: str | None) -> T:
        """Return the result of `run` on the last commit, whose segments stay readable meanwhile, whatever is written.

        Raises
        ------
        ModelMismatchError
            If the commit is of a model other than `fingerprint`; ``None`` allows any model.
        """
        failed: Commit | None = None
        while True:
            with self._catalog.read() as transaction:
                commit = transaction.commit()
                try:
                    snapshot = self._snapshot(transaction, commit)
                except FileNotFoundError as error:
                    # The writer removes no folder that this transaction may need. So the folder was replaced under us,
                    # or this is a read-only medium, where no transaction is seen: then a later commit stands there.
                    if commit != failed:
                        failed = commit
                        continue
                    self._catalog.require_in_place()
                    raise IndexFormatError(f"{self._path} is damaged: {error}") from error
                if fingerprint not in (None, snapshot.fingerprint):
                    raise ModelMismatchError(
                        f"{self._path} now holds vectors of a model of fingerprint {snapshot.fingerprint}; "
                        f"this one has {fingerprint}. Open it again."
                    )
                return run(transaction, snapshot)

    def forget(self) -> None:
        """Release the open segments for good: at once, or when the searches under way are done."""
        with forks_held_off(), self._lock:
            self._last, self._keep = None, False

    def _snapshot(self, transaction: ReadTransaction, commit: Commit) -> Snapshot:
        last = self._last
        if last is not None and last.commit == commit:
            return last
        meta = transaction.meta()
        with self._lock:
            last = self._last
            if last is not None and last.commit == commit:
                return last
            snapshot = take_snapshot(transaction, self._path, meta, last)
            # Commits differ between threads only for a moment; the newest is kept.
            if self._keep and (last is None or not last.commit.is_later_than(commit)):
                self._last = snapshot
        return snapshot


def _selection(transaction: ReadTransaction, snapshot: Snapshot, select: Sql | None) -> Selection:
    if select is None:
        return snapshot.everything
    # Ids differ from call to call, filters are repeated.
    if names_ids(select):
        return narrowed(snapshot, transaction.places_where(select))
    key = json.dumps(select)
    selection = snapshot.chosen.get(key)
    if selection is None:
        selection = narrowed(snapshot, transaction.places_where(select))
        if len(snapshot.chosen) >= _MAX_REMEMBERED_FILTERS:
            snapshot.chosen.clear()
        # Several threads may store the same selection; any of them will do.
        snapshot.chosen[key] = selection
    return selection


def _hits(transaction: ReadTransaction, scores: Mapping[int, float], k: int | None) -> list[Hit]:
    best = scores if k is None or k >= len(scores) else _best(transaction, scores, k)
    rows = transaction.hit_rows(list(best))
    order = best_first([scores[row[0]] for row in rows], [row[1] for row in rows])
    return [
        Hit(rows[position][1], score, rank, rows[position][2], rows[position][3])
        for rank, (position, score) in enumerate(order, start=1)
    ]


def _best(transaction: ReadTransaction, scores: Mapping[int, float], k: int) -> list[int]:
    """Return the catalog numbers of the best `k` of more passages; reads only ids of those that tie for the last."""
    if any(math.isnan(score) for score in scores.values()):
        # They have no order; `best_first` refuses them.
        return list(scores)
    last = sorted(scores.values(), reverse=True)[k - 1]
    certain = [pid for pid, score in scores.items() if score > last]
    tied = [pid for pid, score in scores.items() if score == last]
    if len(certain) + len(tied) == k:
        return certain + tied
    ids = transaction.ids_numbered(tied)
    return certain + sorted(tied, key=lambda pid: ids[pid])[: k - len(certain)]
