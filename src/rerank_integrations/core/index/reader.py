"""Reading an index: every answer from one commit."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.concurrency.lanes import turns
from rerank_integrations.core.index.catalog import Catalog, Commit, Connection, commit_seen
from rerank_integrations.core.index.exact import exact_candidates, stored_scores
from rerank_integrations.core.index.filters import Sql, compile_filter
from rerank_integrations.core.index.schema import read_meta, stored_columns, stored_passage
from rerank_integrations.core.index.search_options import Effort
from rerank_integrations.core.index.segments import Selection
from rerank_integrations.core.index.snapshot import Snapshot, narrowed, take_snapshot
from rerank_integrations.core.index.validation import sql_ids
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import best_first
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import IndexFormatError, InvalidInputError, ModelMismatchError

T = TypeVar("T")
Row: TypeAlias = tuple[int, str, str, dict[str, Any]]

_BY_ID = "id IN (SELECT value FROM json_each(?))"
# Bytes of a text and its metadata that are read with others as one value, and how many of them: 64 MB at most.
_SHORT = 1 << 14
_ROWS_PER_VALUE = 1 << 10
# Filters whose passages are remembered until the next commit; an application has few that come again and again.
_REMEMBERED = 64


class Reader:
    """Searches and look-ups; keeps the open segments of the last commit it saw."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self._path = path
        self._catalog = catalog
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._keep = True

    def selection(self, where: Mapping[str, Any] | None, ids: Sequence[str] | None) -> Sql | None:
        """Compile what may be found to SQL; ``None`` for everything."""
        try:
            clauses = [] if where is None else [compile_filter(where)]
        except RecursionError as error:
            raise InvalidInputError("the filter is nested too deep; expected a flatter one") from error
        if ids is not None:
            clauses.append((_BY_ID, [sql_ids(ids)]))
        if not clauses:
            return None
        return (
            " AND ".join(f"({sql})" for sql, _ in clauses),
            [value for _, parameters in clauses for value in parameters],
        )

    def search(
        self,
        queries: Sequence[Floats],
        k: int,
        select: Sql | None,
        fingerprint: str,
        effort: Effort,
        device: str = "cpu",
    ) -> list[list[Hit]]:
        """Return the best `k` passages of those that `select` keeps, for each query (`k` at least 1)."""

        def run(connection: sqlite3.Connection, snapshot: Snapshot) -> list[list[Hit]]:
            selection = _selection(connection, snapshot, select)
            found = exact_candidates(selection.floats, queries, k)
            for group in selection.groups:
                from rerank_integrations.core.index.plaid.search import search_group

                found = [
                    {**scores, **search_group(group, query, k, effort, device)}
                    for scores, query in zip(found, queries, strict=True)
                ]
            return [_hits(connection, scores, k) for scores in found]

        with turns():
            return self.at_one_commit(run, fingerprint)

    def rerank(
        self, query: Floats, ids: Sequence[str], k: int | None, fingerprint: str, device: str = "cpu"
    ) -> list[Hit]:
        """Return the passages with these `ids`, best first."""
        select = self.selection(None, ids)

        def run(connection: sqlite3.Connection, snapshot: Snapshot) -> list[Hit]:
            selection = _selection(connection, snapshot, select)
            scores = stored_scores(selection.floats, query)
            for group in selection.groups:
                from rerank_integrations.core.index.plaid import search

                scores.update(search.stored_scores(group, query, device))
            return _hits(connection, scores, k)

        return self.at_one_commit(run, fingerprint)

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """Return the passages with these `ids`, in that order, less the unknown ones."""
        query = "SELECT id, text, metadata FROM passages WHERE id IN (SELECT value FROM json_each(?))"
        with self._catalog.read() as connection:
            rows = connection.execute(query, (sql_ids(ids),)).fetchall()
        found = {row[0]: stored_passage(*row) for row in rows}
        return [found[key] for key in ids if key in found]

    def count(self) -> int:
        """Return how many passages there are."""
        with self._catalog.read() as connection:
            return int(connection.execute("SELECT count(*) FROM passages").fetchone()[0])

    def at_one_commit(self, run: Callable[[sqlite3.Connection, Snapshot], T], fingerprint: str | None) -> T:
        """Return what `run` makes of the last commit; its segments stay readable until then, whatever is written.

        Raises
        ------
        ModelMismatchError
            If that commit is of a model other than `fingerprint` (``None``: of any model).
        """
        failed: Commit | None = None
        while True:
            with self._catalog.read() as connection:
                commit = commit_seen(connection)
                try:
                    snapshot = self._snapshot(connection, commit)
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
                return run(connection, snapshot)

    def forget(self) -> None:
        """Release the open segments for good: at once, or when the searches under way are done."""
        with forks_held_off(), self._lock:
            self._last, self._keep = None, False

    def _snapshot(self, connection: Connection, commit: Commit) -> Snapshot:
        last = self._last
        if last is not None and last.commit == commit:
            return last
        meta = read_meta(connection, self._path)
        with self._lock:
            last = self._last
            if last is not None and last.commit == commit:
                return last
            snapshot = take_snapshot(connection, self._path, meta, last)
            # Commits differ between threads only for a moment; the newest is kept.
            if self._keep and (last is None or not last.commit.is_later_than(commit)):
                self._last = snapshot
        return snapshot


def _selection(connection: sqlite3.Connection, snapshot: Snapshot, select: Sql | None) -> Selection:
    if select is None:
        return snapshot.everything
    # Ids differ from call to call, filters come again.
    if _BY_ID in select[0]:
        return narrowed(snapshot, _places(connection, select))
    key = json.dumps(select)
    found = snapshot.chosen.get(key)
    if found is None:
        found = narrowed(snapshot, _places(connection, select))
        if len(snapshot.chosen) >= _REMEMBERED:
            snapshot.chosen.clear()
        # One of several threads that store the same is as good as another.
        snapshot.chosen[key] = found
    return found


def _places(connection: sqlite3.Connection, select: Sql) -> list[tuple[str, int]]:
    try:
        return connection.execute(f"SELECT segment, ordinal FROM passages WHERE {select[0]}", select[1]).fetchall()
    except sqlite3.OperationalError as error:
        # What SQLite cannot compile is the filter's fault; anything else is not.
        if any(sign in str(error) for sign in ("too large", "too many", "stack overflow")):
            raise InvalidInputError(f"the filter is too large: {error}; expected a smaller one, or $in") from error
        raise


def _hits(connection: sqlite3.Connection, scores: Mapping[int, float], k: int | None) -> list[Hit]:
    best = scores if k is None or k >= len(scores) else _best(connection, scores, k)
    rows = _rows(connection, list(best))
    order = best_first([scores[row[0]] for row in rows], [row[1] for row in rows])
    return [
        Hit(rows[place][1], score, rank, rows[place][2], rows[place][3])
        for rank, (place, score) in enumerate(order, start=1)
    ]


def _best(connection: sqlite3.Connection, scores: Mapping[int, float], k: int) -> list[int]:
    """Return the catalog numbers of the best `k` of more; of those that tie for the last places only ids are read."""
    if any(math.isnan(score) for score in scores.values()):
        # Has no order: for `best_first` to refuse.
        return list(scores)
    last = sorted(scores.values(), reverse=True)[k - 1]
    certain = [pid for pid, score in scores.items() if score > last]
    tied = [pid for pid, score in scores.items() if score == last]
    if len(certain) + len(tied) == k:
        return certain + tied
    query = "SELECT pid, id FROM passages WHERE pid IN (SELECT value FROM json_each(?))"
    ids = dict(connection.execute(query, (json.dumps(tied),)).fetchall())
    _require_all(len(ids), tied)
    if not all(isinstance(key, str) for key in ids.values()):
        raise IndexFormatError("the catalog is damaged: the id of a passage is no text; verify() says which")
    return certain + sorted(tied, key=lambda pid: ids[pid])[: k - len(certain)]


def _rows(connection: sqlite3.Connection, pids: list[int]) -> list[Row]:
    # Short ones many in one value: SQLite gives the interpreter up for each row, and with many callers it takes long to
    # come back. Long ones each by itself: SQLite has no value of more than a gigabyte.
    query = f"""SELECT json_group_array(CASE WHEN length(CAST(text AS BLOB)) + length(metadata) <= {_SHORT}
        THEN json_array(pid, id, text, json(metadata)) ELSE pid END) FROM passages
        WHERE pid IN (SELECT value FROM json_each(?))"""
    rows: list[Row] = []
    for start in range(0, len(pids), _ROWS_PER_VALUE):
        batch = json.dumps(pids[start : start + _ROWS_PER_VALUE])
        found = json.loads(connection.execute(query, (batch,)).fetchone()[0])
        rows += [_row(*row) if isinstance(row, list) else _long_row(connection, row) for row in found]
    _require_all(len(rows), pids)
    return rows


def _require_all(found: int, pids: Sequence[int]) -> None:
    """Raise unless each passage that the index of places names has a row: fewer would be returned."""
    if found != len(pids):
        raise IndexFormatError(f"the catalog is damaged: it lacks {len(pids) - found} passages that it has places for")


def _row(pid: int, *columns: Any) -> Row:
    return pid, *stored_columns(*columns)


def _long_row(connection: sqlite3.Connection, pid: int) -> Row:
    row = connection.execute("SELECT id, text, metadata FROM passages WHERE pid = ?", (pid,)).fetchone()
    return _row(pid, *row)
