"""From a query's tables to its finalists in one call without the interpreter's lock: candidates, by levels, by bytes.

A group's parts come as a table of addresses, so that the loops are compiled once for any number of parts.
"""

from __future__ import annotations

import weakref
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.jit import compiled, inlined
from rerank_integrations.core.index.plaid.kernels import approximate, best_centroids, mark_listed
from rerank_integrations.core.index.plaid.simd import at_address
from rerank_integrations.core.index.plaid.token_kernels import Tokens, nearly
from rerank_integrations.core.index.segments import PlaidSegment
from rerank_integrations.core.index.snapshot import Group, Part

_CODES, _RESIDUALS, _SCALES, _OFFSETS, _PASSAGES, _PLACES, _COUNT, _STARTS, _LISTED, _LISTED_BYTES = range(10)
# numba's types do not name it.
carray: Any = numba.carray  # type: ignore[attr-defined]

_TABLES: weakref.WeakKeyDictionary[Group, NDArray[np.uintp]] = weakref.WeakKeyDictionary()


def part_table(group: Group) -> NDArray[np.uintp]:
    """Return where the arrays of a group's parts are, for as long as it lives; *Shape:* (parts, 10)."""
    table = _TABLES.get(group)
    if table is None:
        # Another thread's is the same.
        table = _TABLES[group] = np.array([_addresses(part) for part in group.parts], dtype=np.uintp).reshape(-1, 10)
    return table


def _addresses(part: Part[PlaidSegment]) -> list[int]:
    segment = part.segment
    arrays = segment.codes, segment.residuals, segment.scales, segment.offsets
    row = [
        *(array.ctypes.data for array in arrays),
        len(segment.offsets) - 1,
        part.places.ctypes.data,
        len(part.places),
    ]
    if segment.list_starts is None or segment.listed is None:
        return [*row, 0, 0, 0]
    return [*row, segment.list_starts.ctypes.data, segment.listed.ctypes.data, segment.listed.itemsize]


@inlined
def _tokens(row: Any, scale_type: Any, width: Any, step: Any, whole: Any) -> Any:
    passages = np.intp(row[_PASSAGES])
    offsets = carray(at_address(row[_OFFSETS]), passages + 1, np.int64)
    count = offsets[passages]
    return Tokens(
        carray(at_address(row[_CODES]), count, np.uint16),
        carray(at_address(row[_RESIDUALS]), count * width, np.uint8),
        carray(at_address(row[_SCALES]), count, scale_type.dtype),
        width,
        offsets,
        step,
        whole,
    )


@inlined
def _met(row: Any, chosen: Any, out: Any) -> Any:
    places = carray(at_address(row[_PLACES]), np.intp(row[_COUNT]), np.int32)
    if row[_LISTED_BYTES] == 0:
        out[: len(places)] = places
        return len(places)
    starts = carray(at_address(row[_STARTS]), len(chosen) + 1, np.int32)
    marks = np.zeros(np.intp(row[_PASSAGES]), dtype=np.uint8)
    if row[_LISTED_BYTES] == 2:
        mark_listed(chosen, starts, carray(at_address(row[_LISTED]), starts[-1], np.uint16), marks)
    else:
        mark_listed(chosen, starts, carray(at_address(row[_LISTED]), starts[-1], np.uint32), marks)
    count = 0
    for place in places:
        out[count] = place
        count += marks[np.uintp(place)]
    return count


@inlined
def _keep_best(found: Any, bounds: Any, scores: Any, count: Any) -> None:
    total = bounds[-1]
    if total <= count:
        return
    bar = np.partition(scores[:total], total - count)[total - count]
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
    scale_type: Any,
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
    scale_type
        An array of the scales' dtype.
    width, step, whole
        As of `token_kernels.Tokens`.
    query, levels
        `token_kernels.Query`, and its levels as *Shape:* (centroids, lanes).
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
    total = np.intp(table[:, _COUNT].sum())
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
            places = carray(at_address(table[part, _PLACES]), np.intp(table[part, _COUNT]), np.int32)
            bounds[part + 1] = bounds[part] + len(places)
            found[bounds[part] : bounds[part + 1]] = places
    scores = np.empty(bounds[-1], dtype=np.float64)
    for part in range(len(table)):
        some = slice(bounds[part], bounds[part + 1])
        stored = _tokens(table[part], scale_type, width, step, whole)
        approximate(stored.codes, stored.offsets, found[some], levels, scores[some])
    _keep_best(found, bounds, scores, wanted)
    for part in range(len(table)):
        some = slice(bounds[part], bounds[part + 1])
        nearly(_tokens(table[part], scale_type, width, step, whole), query, found[some], slack, scores[some])
    _keep_best(found, bounds, scores, kept)
    return found[: bounds[-1]].copy()
