"""Reading an index: search and look-up, each answer from one commit."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.concurrency.lanes import turns
from rerank_integrations.core.index.bm25 import BM25, best_positions
from rerank_integrations.core.index.exact import exact_candidates, stored_scores
from rerank_integrations.core.index.fusion import DEFAULT_BM25_WEIGHT, DEPTH, HybridParts, candidate_parts
from rerank_integrations.core.index.plaid.search_options import SearchOptions
from rerank_integrations.core.index.snapshot import Snapshot, narrowed, take_snapshot
from rerank_integrations.core.index.storage.catalog import Catalog, Commit, ReadTransaction
from rerank_integrations.core.index.storage.catalog_rules import recorded_bm25_weight
from rerank_integrations.core.index.storage.filters import Sql, compile_selection, names_ids
from rerank_integrations.core.index.storage.segments import Selection
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import best_first
from rerank_integrations.core.types import Hit, Passage, RankingNote
from rerank_integrations.errors import IndexFormatError, ModelMismatchError

T = TypeVar("T")


class TextIndexMissingError(Exception):
    """The commit that was to be searched has no text index; the caller knows what to do about it."""


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
            return [_hits(transaction, scores, k) for scores in _best_by_maxsim(selection, queries, k, options, device)]

        with turns():
            return self.at_one_commit(run, fingerprint)

    def search_bm25(self, queries: Sequence[str], k: int, select: Sql | None) -> list[list[Hit]]:
        """Return the best `k` of the passages that satisfy `select` and have a term of the query, for each query."""

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[list[Hit]]:
            texts = _texts(transaction, snapshot)
            allowed = _allowed(transaction, snapshot, texts, select)
            results = []
            for query in queries:
                scores = texts.scores(transaction, query)
                best = best_positions(scores, allowed, k)
                by_pid = dict(zip(texts.pids[best].tolist(), scores[best].tolist(), strict=True))
                results.append(_hits(transaction, by_pid, k, lambda _: {"search_type": "bm25"}))
            return results

        return self.at_one_commit(run, None)

    def search_hybrid(
        self,
        queries: Sequence[tuple[str, Floats]],
        k: int,
        select: Sql | None,
        fingerprint: str,
        options: SearchOptions,
        bm25_weight: float | None,
        device: str = "cpu",
    ) -> list[list[Hit]]:
        """Return the best `k` by both scores, for each query as text and vectors; ``None`` is the stored weight."""

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[list[Hit]]:
            stored = recorded_bm25_weight(transaction.meta()) if bm25_weight is None else bm25_weight
            weight = DEFAULT_BM25_WEIGHT if stored is None else stored
            hits = []
            for parts in _parts_of_each(transaction, snapshot, queries, max(k, DEPTH), select, options, device):
                scores = {pid: part.score(weight) for pid, part in parts.items()}
                hits.append(_hits(transaction, scores, k, lambda pid, parts=parts: parts[pid].note(weight)))  # type: ignore[misc]
            return hits

        with turns():
            return self.at_one_commit(run, fingerprint)

    def hybrid_parts(
        self,
        queries: Sequence[tuple[str, Floats]],
        fingerprint: str,
        options: SearchOptions,
        device: str = "cpu",
    ) -> list[dict[str, HybridParts]]:
        """Return both scores of each candidate of a hybrid search, by id, for each query as text and vectors."""

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[dict[str, HybridParts]]:
            results = []
            for parts in _parts_of_each(transaction, snapshot, queries, DEPTH, None, options, device):
                named = transaction.ids_numbered(list(parts))
                results.append({named[pid]: part for pid, part in parts.items()})
            return results

        with turns():
            return self.at_one_commit(run, fingerprint)

    def rerank(
        self, query: Floats, ids: Sequence[str], k: int | None, fingerprint: str, device: str = "cpu"
    ) -> list[Hit]:
        """Return the passages with these `ids`, best first."""
        select = compile_selection(None, ids)

        def run(transaction: ReadTransaction, snapshot: Snapshot) -> list[Hit]:
            selection = _selection(transaction, snapshot, select)
            return _hits(transaction, _maxsim_of_all(selection, query, device), k)

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


def _best_by_maxsim(
    selection: Selection, queries: Sequence[Floats], k: int, options: SearchOptions, device: str
) -> list[dict[int, float]]:
    """Return, for each query, the MaxSim of every passage that could be among the best `k`."""
    candidates = exact_candidates(selection.floats, queries, k)
    for group in selection.groups:
        from rerank_integrations.core.index.plaid.search import search_group

        candidates = [
            {**scores, **search_group(group, query, k, options, device)}
            for scores, query in zip(candidates, queries, strict=True)
        ]
    return candidates


def _maxsim_of_all(selection: Selection, query: Floats, device: str) -> dict[int, float]:
    """Return the MaxSim of every passage of a selection."""
    scores = stored_scores(selection.floats, query)
    for group in selection.groups:
        from rerank_integrations.core.index.plaid import search

        scores.update(search.stored_scores(group, query, device))
    return scores


def _texts(transaction: ReadTransaction, snapshot: Snapshot) -> BM25:
    """Return BM25 over the snapshot's texts, made once per commit.

    Raises
    ------
    TextIndexMissingError
        If the commit has no text index.
    """
    if not snapshot.texts:
        if not transaction.has_text_index():
            raise TextIndexMissingError
        # Several threads may make the same; any of them will do.
        snapshot.texts.append(BM25(transaction))
    return snapshot.texts[0]


def _allowed(
    transaction: ReadTransaction, snapshot: Snapshot, texts: BM25, select: Sql | None
) -> NDArray[np.int64] | None:
    """Return the positions of the passages that satisfy `select`; ``None`` for all."""
    if select is None:
        return None
    selection = _selection(transaction, snapshot, select)
    exact = [part.pids[part.ordinals] for part in selection.floats]
    compressed = [part.pids[part.ordinals] for group in selection.groups for part in group.parts]
    return texts.positions(np.concatenate([np.empty(0, np.int64), *exact, *compressed]))


def _parts_of_each(
    transaction: ReadTransaction,
    snapshot: Snapshot,
    queries: Sequence[tuple[str, Floats]],
    depth: int,
    select: Sql | None,
    options: SearchOptions,
    device: str,
) -> Iterator[dict[int, HybridParts]]:
    """Yield both scores of the candidates of each query: the best `depth` of either search."""
    texts = _texts(transaction, snapshot)
    allowed = _allowed(transaction, snapshot, texts, select)
    selection = _selection(transaction, snapshot, select)
    vectors = [query_vectors for _, query_vectors in queries]
    by_maxsim = _best_by_maxsim(selection, vectors, depth, options, device)
    for (query, query_vectors), maxsim in zip(queries, by_maxsim, strict=True):
        colbert = {pid: maxsim[pid] for pid in _best(transaction, maxsim, depth)}
        found = set(colbert)
        bm25 = texts.scores(transaction, query)
        best = best_positions(bm25, allowed, depth)
        by_bm25 = dict(zip(texts.pids[best].tolist(), bm25[best].tolist(), strict=True))
        missing = [pid for pid in _best(transaction, by_bm25, depth) if pid not in found]
        if missing:
            places = transaction.places_numbered(missing)
            colbert |= _maxsim_of_all(narrowed(snapshot, places), query_vectors, device)
        pids = np.array(sorted(colbert), dtype=np.int64)
        scores = bm25[texts.positions(pids)]
        yield candidate_parts(colbert, dict(zip(pids.tolist(), scores.tolist(), strict=True)), found)


def _hits(
    transaction: ReadTransaction,
    scores: Mapping[int, float],
    k: int | None,
    note: Callable[[int], RankingNote] = lambda pid: {},
) -> list[Hit]:
    best = scores if k is None else _best(transaction, scores, k)
    rows = transaction.hit_rows(list(best))
    order = best_first([scores[row[0]] for row in rows], [row[1] for row in rows])
    return [
        Hit(rows[position][1], score, rank, rows[position][2], rows[position][3], note(rows[position][0]))
        for rank, (position, score) in enumerate(order, start=1)
    ]


def _best(transaction: ReadTransaction, scores: Mapping[int, float], k: int) -> list[int]:
    """Return the catalog numbers of the best `k` of more passages; reads only ids of those that tie for the last."""
    if any(math.isnan(score) for score in scores.values()):
        # They have no order; `best_first` refuses them.
        return list(scores)
    if k >= len(scores):
        return list(scores)
    last = sorted(scores.values(), reverse=True)[k - 1]
    certain = [pid for pid, score in scores.items() if score > last]
    tied = [pid for pid, score in scores.items() if score == last]
    if len(certain) + len(tied) == k:
        return certain + tied
    ids = transaction.ids_numbered(tied)
    return certain + sorted(tied, key=lambda pid: ids[pid])[: k - len(certain)]
