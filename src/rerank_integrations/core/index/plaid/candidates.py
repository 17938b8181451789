"""From a query's tables to its finalists in one call without the interpreter's lock: candidates, by levels, by bytes.

A group's parts come as a table of addresses, so that the loops are compiled once for any number of parts.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.jit import called, compiled, inlined
from rerank_integrations.core.index.plaid.kernels import approximate, best_centroids, mark_listed
from rerank_integrations.core.index.plaid.simd import at_address
from rerank_integrations.core.index.plaid.stored_tokens import PASSAGES, ROW, carray, segment_row, tokens_at
from rerank_integrations.core.index.plaid.token_kernels import nearly
from rerank_integrations.core.index.segments import Group, Part, PlaidSegment

# What a row of the table has after `stored_tokens.segment_row`.
_PLACES, _COUNT, _STARTS, _LISTED, _LISTED_BYTES = range(ROW, ROW + 5)

_TABLES: weakref.WeakKeyDictionary[Group, NDArray[np.uintp]] = weakref.WeakKeyDictionary()


def part_table(group: Group) -> NDArray[np.uintp]:
    """Return where the arrays of a group's parts are, for as long as it lives; *Shape:* (parts, 10)."""
    table = _TABLES.get(group)
    if table is None:
        # Another thread's is the same.
        table = _TABLES[group] = np.array([_addresses(part) for part in group.parts], dtype=np.uintp).reshape(
            -1, ROW + 5
        )
    return table


def _addresses(part: Part[PlaidSegment]) -> list[int]:
    segment = part.segment
    row = [*segment_row(segment), part.places.ctypes.data, len(part.places)]
    if segment.list_starts is None or segment.listed is None:
        return [*row, 0, 0, 0]
    return [*row, segment.list_starts.ctypes.data, segment.listed.ctypes.data, segment.listed.itemsize]


@inlined
def _all_of(row: Any, out: Any) -> Any:
    # By hand: numba brings its strings along to say that two slices do not fit, which is seconds of compiling.
    places = carray(at_address(row[_PLACES]), np.intp(row[_COUNT]), np.int32)
    for number in range(len(places)):
        out[number] = places[number]
    return len(places)


@inlined
def _met(row: Any, chosen: Any, out: Any) -> Any:
    places = carray(at_address(row[_PLACES]), np.intp(row[_COUNT]), np.int32)
    if row[_LISTED_BYTES] == 0:
        return _all_of(row, out)
    starts = carray(at_address(row[_STARTS]), len(chosen) + 1, np.int32)
    marks = np.zeros(np.intp(row[PASSAGES]), dtype=np.uint8)
    if row[_LISTED_BYTES] == 2:
        mark_listed(chosen, starts, carray(at_address(row[_LISTED]), starts[-1], np.uint16), marks)
    else:
        mark_listed(chosen, starts, carray(at_address(row[_LISTED]), starts[-1], np.uint32), marks)
    count = 0
    for place in places:
        out[count] = place
        count += marks[np.uintp(place)]
    return count


@called
def nth_lowest(scores: Any, place: Any) -> Any:
    """Return what stands at `place` once the scores are sorted; reorders them.

    Hoare's selection ("Algorithm 65: Find", 1961). numba's `np.partition` takes seconds to compile.
    """
    left, right = 0, len(scores) - 1
    while left < right:
        pivot = scores[place]
        low, high = left, right
        # Neither runs out of the array: each stops at the pivot, or at what the other has swapped; at NaN too.
        while low <= high:
            while scores[low] < pivot:
                low += 1
            while pivot < scores[high]:
                high -= 1
            if low <= high:
                scores[low], scores[high] = scores[high], scores[low]
                low += 1
                high -= 1
        if high < place:
            left = low
        if place < low:
            right = high
    return scores[place]


@inlined
def _keep_best(found: Any, bounds: Any, scores: Any, count: Any) -> None:
    total = bounds[-1]
    if total <= count:
        return
    bar = nth_lowest(scores[:total].copy(), total - count)
    kept = first = 0
    for part in range(len(bounds) - 1):
        end = bounds[part + 1]
        for number in range(first, end):
            if scores[number] >= bar:
                found[kept] = found[number]
                kept += 1
        first = end
        bounds[part + 1] = kept


@compiled
def finalists(
    table: Any,
    scale_bytes: Any,
    width: Any,
    step: Any,
    whole: Any,
    query: Any,
    levels: Any,
    centroids: Any,
    probes: Any,
    wanted: Any,
    slack: Any,
    kept: Any,
    bounds: Any,
) -> Any:
    """Return the passages whose MaxSim is worth computing, part after part.

    Parameters
    ----------
    table
        Of `part_table`.
    scale_bytes, width, step, whole
        As of `stored_tokens.Tokens`.
    query, levels
        `stored_tokens.Query`, and its levels as *Shape:* (centroids, lanes).
    centroids
        How many there are, less those that fill up.
    probes
        How many of the best centroids of each query token to look into; 0 for all passages.
    wanted
        How many to keep by their centroids.
    slack
        As of `token_kernels.nearly`.
    kept
        How many to keep after that.
    bounds
        Written. Int64, *Shape:* (parts + 1,): where each part's passages end.

    Returns
    -------
    numpy.ndarray
        Ordinals, int32: at least as many as are to be kept, if there are so many.
    """
    total = 0
    for part in range(len(table)):
        total += np.intp(table[part, _COUNT])
    found = np.empty(total, dtype=np.int32)
    bounds[0] = 0
    if probes:
        chosen = np.zeros(centroids, dtype=np.uint8)
        best_centroids(levels, centroids, query.tokens, probes, chosen)
        for part in range(len(table)):
            bounds[part + 1] = bounds[part] + _met(table[part], chosen, found[bounds[part] :])
    if not probes or bounds[-1] < min(wanted, total):
        # All of them, by their centroids, where too few were met.
        for part in range(len(table)):
            bounds[part + 1] = bounds[part] + _all_of(table[part], found[bounds[part] :])
    scores = np.empty(bounds[-1], dtype=np.float64)
    for part in range(len(table)):
        some = slice(bounds[part], bounds[part + 1])
        stored = tokens_at(table[part], scale_bytes, width, step, whole)
        approximate(stored.codes, stored.offsets, found[some], levels, scores[some])
    _keep_best(found, bounds, scores, wanted)
    for part in range(len(table)):
        some = slice(bounds[part], bounds[part + 1])
        nearly(tokens_at(table[part], scale_bytes, width, step, whole), query, found[some], slack, scores[some])
    _keep_best(found, bounds, scores, kept)
    return found[: bounds[-1]].copy()
