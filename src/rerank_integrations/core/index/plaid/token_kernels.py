"""The stages of PLAID search that look at every token, compiled by numba: four tokens at a time, in bytes.

From a query's tables to its finalists it is one call without the interpreter's lock: candidates by their centroids'
levels, then finalists by bytes. A second call computes the MaxSim of the finalists in floats. The arithmetic in bytes
is llama.cpp's and FAISS's kind of integer dot product; what it cannot tell apart is settled in floats.

The loops hold no lock and no state, so any thread may call them. All arrays are contiguous. Segments come as rows of
addresses, so that the loops are compiled once for any number of them, memory-mapped or not.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.centroid_kernels import (
    approximate,
    best_centroids,
    code_at,
    fetch_passage,
    mark_listed,
    require_rows,
)
from rerank_integrations.core.index.plaid.jit import apart, called, compiled, inlined
from rerank_integrations.core.index.plaid.simd import (
    BYTES,
    FLOATS,
    add,
    add_sums,
    add_word_products,
    any_float_larger,
    any_larger,
    as_floats,
    at_address,
    larger,
    larger_bytes,
    load_bytes,
    load_eight,
    load_floats,
    load_from_bytes,
    load_sixteen,
    lowered,
    multiply_add,
    no_products,
    prefetch,
    repeat,
    store_bytes,
    store_floats,
    where_less,
)
from rerank_integrations.core.index.storage.segments import Group, Part, PlaidSegment


class Tokens(NamedTuple):
    """A segment's compressed passages.

    Parameters
    ----------
    codes, residuals, scales
        Uint16 *Shape:* (tokens,), uint8 *Shape:* (tokens * width,), uint8 *Shape:* (tokens * scale_bytes,).
    scale_bytes, width
        The number of bytes of a scale, 1 or 2, and of a residual.
    offsets
        Int64, *Shape:* (passages + 1,).
    step
        The value of one unit of `scales`.
    whole
        Whether the scale applies to the whole vector, or to its residual alone.
    """

    codes: Any
    residuals: Any
    scales: Any
    scale_bytes: int
    width: int
    offsets: Any
    step: np.float32
    whole: bool


class Query(NamedTuple):
    """A query in bytes, in blocks of 16 tokens, the last block padded with zeros.

    Parameters
    ----------
    levels
        The levels that `centroid_kernels.centroid_levels` writes, flat.
    lanes
        The number of levels per centroid.
    level_unit
        The score of one level.
    words
        Codewords as unsigned bytes, 1, 2, 4 or 8 of them in an unsigned number; *Shape:* (256,).
    columns
        As in `centroid_kernels.centroid_levels`.
    units, shifts
        Factors and summands that turn a query token's products with codewords into scores: float32, *Shape:*
        (16 * blocks,).
    margins, scaled_margins
        The largest error of a value: the fixed part, and the part per unit of scale. Float32, *Shape:*
        (16 * blocks,); minus infinity and 0 in the padding.
    tokens
        The number of query tokens.
    """

    levels: Any
    lanes: int
    level_unit: np.float32
    words: Any
    columns: Any
    units: Any
    shifts: Any
    margins: Any
    scaled_margins: Any
    tokens: int


# A segment's row: the addresses of its codes, residuals, scales and offsets, and its number of passages.
_CODES, _RESIDUALS, _SCALES, _OFFSETS, PASSAGES, ROW = range(6)
# numba's types do not name it.
carray: Any = numba.carray  # type: ignore[attr-defined]


def segment_row(segment: PlaidSegment) -> list[int]:
    """Return the addresses of a segment's arrays, so that loops are compiled once for mapped and for other arrays."""
    arrays = segment.codes, segment.residuals, segment.scales, segment.offsets
    return [*(array.ctypes.data for array in arrays), len(segment.offsets) - 1]


@inlined
def tokens_at(row: Any, scale_bytes: Any, width: Any, step: Any, whole: Any) -> Any:
    """Return the `Tokens` of a `segment_row`."""
    passages = np.intp(row[PASSAGES])
    offsets = carray(at_address(row[_OFFSETS]), passages + 1, np.int64)
    count = offsets[passages]
    return Tokens(
        carray(at_address(row[_CODES]), count, np.uint16),
        carray(at_address(row[_RESIDUALS]), count * width, np.uint8),
        carray(at_address(row[_SCALES]), count * scale_bytes, np.uint8),
        scale_bytes,
        width,
        offsets,
        step,
        whole,
    )


@inlined
def scale_at(stored: Any, token: Any) -> Any:
    """Return a token's scale."""
    # This takes no branch: a scale of a single byte reads that byte twice.
    first, more = np.intp(token) * stored.scale_bytes, stored.scale_bytes - 1
    low, high = np.intp(stored.scales[np.uintp(first)]), np.intp(stored.scales[np.uintp(first + more)])
    return np.float32(np.int32(low + 256 * high * more)) * stored.step


_NOTHING = np.float32(-3e38)
_BATCH = 4
# The number of tokens whose bytes are fetched before the first of them is scored.
_WAITING = 64


@inlined
def _sums(stored: Any, query: Any, block: Any, batch: Any) -> Any:
    fours = stored.width * query.words.itemsize // 4
    words, residuals, columns = query.words, stored.residuals, query.columns
    p, q, r, s = (
        batch[0] * stored.width,
        batch[1] * stored.width,
        batch[2] * stored.width,
        batch[3] * stored.width,
    )
    # Two sums per token, so that a product need not wait for the one before.
    a = b = c = d = e = f = g = h = no_products()
    for i in range(0, fours, 2):
        column = (block * fours + i * FLOATS) * 4
        a = add_word_products(a, words, residuals, p, i, columns, column)
        b = add_word_products(b, words, residuals, q, i, columns, column)
        c = add_word_products(c, words, residuals, r, i, columns, column)
        d = add_word_products(d, words, residuals, s, i, columns, column)
        column += 4 * FLOATS
        e = add_word_products(e, words, residuals, p, i + 1, columns, column)
        f = add_word_products(f, words, residuals, q, i + 1, columns, column)
        g = add_word_products(g, words, residuals, r, i + 1, columns, column)
        h = add_word_products(h, words, residuals, s, i + 1, columns, column)
    return add_sums(a, e), add_sums(b, f), add_sums(c, g), add_sums(d, h)


@inlined
def _centre(stored: Any, query: Any, block: Any, token: Any) -> Any:
    return load_from_bytes(query.levels, code_at(stored.codes, token) * query.lanes + block)


@inlined
def _value(sums: Any, level: Any, stored: Any, query: Any, block: Any, token: Any) -> Any:
    scale = repeat(scale_at(stored, token))
    residual = multiply_add(as_floats(sums), load_floats(query.units, block), load_floats(query.shifts, block))
    if stored.whole:
        both = multiply_add(level, repeat(query.level_unit), residual)
        return multiply_add(scale, both, repeat(np.float32(0.0)))
    centre = multiply_add(level, repeat(query.level_unit), repeat(np.float32(0.0)))
    return multiply_add(scale, residual, centre)


@inlined
def _floors(codes: Any, start: Any, end: Any, levels: Any, lanes: Any, slack: Any, floors: Any) -> None:
    for block in range(0, lanes, BYTES):
        top = load_bytes(levels, code_at(codes, start) * lanes + block)
        for token in range(start + 1, end):
            top = larger_bytes(top, load_bytes(levels, code_at(codes, token) * lanes + block))
        store_bytes(floors, block, lowered(top, slack))


@inlined
def _promising(levels: Any, place: Any, floors: Any) -> Any:
    for block in range(0, len(floors), BYTES):
        if any_larger(load_bytes(levels, place + block), load_bytes(floors, block)):
            return True
    return False


@inlined
def _raise_best(stored: Any, query: Any, waiting: Any, filled: Any, batch: Any, best: Any) -> None:
    for first in range(0, filled, _BATCH):
        # Where there is no fourth token, the last one is taken again.
        for i in range(_BATCH):
            batch[i] = waiting[min(first + i, filled - 1)]
        for block in range(0, len(best), FLOATS):
            top = load_floats(best, block)
            for i, sums in enumerate(_sums(stored, query, block, batch)):
                level = _centre(stored, query, block, batch[i])
                top = larger(top, _value(sums, level, stored, query, block, batch[i]))
            store_floats(best, block, top)


@inlined
def _total(best: Any, tokens: Any) -> Any:
    total = 0.0
    for lane in range(tokens):
        total += best[lane]
    return total


# Inlined into the loop that calls it, it takes three times as long.
@apart
def nearly(stored: Any, query: Any, places: Any, slack: Any, out: Any) -> None:
    """Compute the approximate MaxSim of passages in 8-bit numbers, from their tokens with promising centroids alone.

    Parameters
    ----------
    stored, query
        `Tokens` and `Query`.
    places
        The ordinals of the passages, int32.
    slack
        Leave out tokens whose centroids score lower than the passage's best by this many levels or more, for every
        query token.
    out
        Written. Float64, *Shape:* of `places`.
    """
    codes, residuals, width, levels, lanes = stored.codes, stored.residuals, stored.width, query.levels, query.lanes
    floors = np.empty(lanes, dtype=np.uint8)
    best = np.empty(len(query.units), dtype=np.float32)
    waiting, batch = np.empty(_WAITING, dtype=np.int64), np.empty(_BATCH, dtype=np.int64)
    for number in range(len(places)):
        start, end = stored.offsets[places[number]], stored.offsets[places[number] + 1]
        fetch_passage(codes, stored.offsets, places, number + 1)
        require_rows(codes, start, end, len(levels) // lanes)
        best[:] = -1.0
        if end > start:
            _floors(codes, start, end, levels, lanes, np.uint8(slack), floors)
        filled = 0
        for token in range(start, end):
            if _promising(levels, code_at(codes, token) * lanes, floors):
                prefetch(residuals, token * width)
                waiting[filled] = token
                filled += 1
            if filled == _WAITING or (filled and token == end - 1):
                _raise_best(stored, query, waiting, filled, batch, best)
                filled = 0
        out[number] = _total(best, query.tokens)


@inlined
def _bound(stored: Any, query: Any, start: Any, end: Any, batch: Any, tops: Any, winners: Any, ceilings: Any) -> None:
    # Write the highest possible score of each token for each query token, and the token where it is largest.
    width = len(tops)
    tops[:] = _NOTHING
    # Without a product that is a number there is no winner, and another passage's winner could lie past the end.
    winners[:] = np.float32(0.0)
    for first in range(start, end, _BATCH):
        for i in range(_BATCH):
            batch[i] = min(first + i, end - 1)
        for block in range(0, width, FLOATS):
            top, winner = load_floats(tops, block), load_floats(winners, block)
            for i, sums in enumerate(_sums(stored, query, block, batch)):
                value = _value(sums, _centre(stored, query, block, batch[i]), stored, query, block, batch[i])
                scale = repeat(scale_at(stored, batch[i]))
                margin = multiply_add(
                    scale, load_floats(query.scaled_margins, block), load_floats(query.margins, block)
                )
                ceiling = add(value, margin)
                winner = where_less(top, ceiling, repeat(np.float32(batch[i] - start)), winner)
                top = larger(top, ceiling)
                store_floats(ceilings, (batch[i] - start) * width + block, ceiling)
            store_floats(tops, block, top)
            store_floats(winners, block, winner)


@inlined
def _take_winners(winners: Any, tokens: Any, ceilings: Any, kept: Any, width: Any) -> Any:
    filled = 0
    for lane in range(tokens):
        place = np.intp(winners[lane])
        if ceilings[place * width] > _NOTHING:
            # The token is not taken again.
            ceilings[place * width : (place + 1) * width] = _NOTHING
            kept[filled] = place
            filled += 1
    return filled


@inlined
def _reaches(ceilings: Any, place: Any, bars: Any) -> Any:
    for block in range(0, len(bars), FLOATS):
        if any_float_larger(load_floats(ceilings, place + block), load_floats(bars, block)):
            return True
    return False


@inlined
def _take_reaching(ceilings: Any, tokens: Any, best: Any, kept: Any) -> Any:
    filled = 0
    for place in range(tokens):
        if _reaches(ceilings, place * len(best), best):
            kept[filled] = place
            filled += 1
    return filled


@inlined
def _whole_or_sum(residual: Any, centroids: Any, place: Any, scale: Any, whole: Any) -> Any:
    centre = load_floats(centroids, place)
    if whole:
        return multiply_add(repeat(scale), add(centre, residual), repeat(np.float32(0.0)))
    return multiply_add(repeat(scale), residual, centre)


@inlined
def _decompress(
    stored: Any, words: Any, codebook: Any, centroids: Any, wide: Any, token: Any, out: Any, at: Any
) -> None:
    # The number of bytes that stand for 16 floats.
    step = FLOATS // words.itemsize
    scale = scale_at(stored, token)
    centroid, place = code_at(stored.codes, token) * wide, token * stored.width
    for i in range(stored.width // step):
        residual = load_sixteen(codebook, words, stored.residuals, place + i * step)
        vector = _whole_or_sum(residual, centroids, centroid + i * FLOATS, scale, stored.whole)
        store_floats(out, at + i * FLOATS, vector)
    if stored.width % step:
        i = stored.width // step
        residual = load_eight(codebook, words, stored.residuals, place + i * step)
        vector = _whole_or_sum(residual, centroids, centroid + i * FLOATS, scale, stored.whole)
        store_floats(out, at + i * FLOATS, vector)


@inlined
def _raise_by(values: Any, wide: Any, columns: Any, best: Any) -> None:
    for block in range(0, len(best), FLOATS):
        # Two sums per token, so that a product need not wait for the one before.
        a = b = c = d = e = f = g = h = repeat(np.float32(0.0))
        for i in range(0, wide, 2):
            column = load_floats(columns, block * wide + i * FLOATS)
            a = multiply_add(repeat(values[i]), column, a)
            b = multiply_add(repeat(values[wide + i]), column, b)
            c = multiply_add(repeat(values[2 * wide + i]), column, c)
            d = multiply_add(repeat(values[3 * wide + i]), column, d)
            column = load_floats(columns, block * wide + (i + 1) * FLOATS)
            e = multiply_add(repeat(values[i + 1]), column, e)
            f = multiply_add(repeat(values[wide + i + 1]), column, f)
            g = multiply_add(repeat(values[2 * wide + i + 1]), column, g)
            h = multiply_add(repeat(values[3 * wide + i + 1]), column, h)
        top = larger(larger(add(a, e), add(b, f)), larger(add(c, g), add(d, h)))
        store_floats(best, block, larger(top, load_floats(best, block)))


@inlined
def _raise_exactly(
    stored: Any,
    words: Any,
    codebook: Any,
    centroids: Any,
    wide: Any,
    start: Any,
    kept: Any,
    filled: Any,
    values: Any,
    columns: Any,
    best: Any,
) -> None:
    for number in range(filled):
        for i in range(0, wide, FLOATS):
            prefetch(centroids, code_at(stored.codes, start + kept[number]) * wide + i)
    for first in range(0, filled, _BATCH):
        # Where there is no fourth token, the last one is taken again.
        for i in range(_BATCH):
            token = start + kept[min(first + i, filled - 1)]
            _decompress(stored, words, codebook, centroids, wide, token, values, i * wide)
        _raise_by(values, wide, columns, best)


@compiled
def maxsim(
    row: Any,
    scale_bytes: Any,
    width: Any,
    step: Any,
    whole: Any,
    query: Any,
    places: Any,
    centroids: Any,
    codebook: Any,
    columns: Any,
    out: Any,
) -> None:
    """Compute the MaxSim of passages' decompressed tokens.

    Parameters
    ----------
    row
        The result of `segment_row`; uintp.
    scale_bytes, width, step, whole
        As in `Tokens`.
    query, places
        As in `nearly`.
    centroids
        Float32, *Shape:* (centroids, wide), wide a multiple of 16; zeros past the dimensions.
    codebook
        Float32, *Shape:* (256 * m,).
    columns
        Float32, *Shape:* (blocks, wide, 16), flat: the query's tokens as columns.
    out
        Written. Float64, *Shape:* of `places`; minus one per query token for a passage without tokens.
    """
    stored = tokens_at(row, scale_bytes, width, step, whole)
    count, wide = centroids.shape
    flat = centroids.reshape(-1)
    longest = 1
    for place in places:
        longest = max(longest, stored.offsets[place + 1] - stored.offsets[place])
    lanes = len(query.units)
    kept, batch = np.empty(longest, dtype=np.int64), np.empty(_BATCH, dtype=np.int64)
    ceilings = np.empty(longest * lanes, dtype=np.float32)
    values = np.zeros(_BATCH * wide, dtype=np.float32)
    tops, winners, best = (
        np.empty(lanes, dtype=np.float32),
        np.zeros(lanes, dtype=np.float32),
        np.empty(lanes, dtype=np.float32),
    )
    for number in range(len(places)):
        start, end = stored.offsets[places[number]], stored.offsets[places[number] + 1]
        require_rows(stored.codes, start, end, count)
        best[:] = _NOTHING if end > start else np.float32(-1.0)
        if end > start:
            # Floats only for tokens that may be a query token's best: first the likely ones, then all still possible.
            _bound(stored, query, start, end, batch, tops, winners, ceilings)
            for again in range(2):
                if again:
                    filled = _take_reaching(ceilings, end - start, best, kept)
                else:
                    filled = _take_winners(winners, query.tokens, ceilings, kept, lanes)
                _raise_exactly(stored, query.words, codebook, flat, wide, start, kept, filled, values, columns, best)
        out[number] = _total(best, query.tokens)


# The columns of a row of `part_table` after those of `segment_row`.
_PLACES, _COUNT, _STARTS, _LISTED, _LISTED_BYTES = range(ROW, ROW + 5)

_TABLES: weakref.WeakKeyDictionary[Group, NDArray[np.uintp]] = weakref.WeakKeyDictionary()


def part_table(group: Group) -> NDArray[np.uintp]:
    """Return the addresses of the arrays of a group's parts, valid while the group lives; *Shape:* (parts, 10)."""
    table = _TABLES.get(group)
    if table is None:
        # Another thread that comes at the same time makes an equal one.
        table = _TABLES[group] = np.array([_addresses(part) for part in group.parts], dtype=np.uintp).reshape(
            -1, ROW + 5
        )
    return table


def _addresses(part: Part[PlaidSegment]) -> list[int]:
    segment = part.segment
    row = [*segment_row(segment), part.ordinals.ctypes.data, len(part.ordinals)]
    if segment.list_starts is None or segment.listed is None:
        return [*row, 0, 0, 0]
    return [*row, segment.list_starts.ctypes.data, segment.listed.ctypes.data, segment.listed.itemsize]


@inlined
def _all_of(row: Any, out: Any) -> Any:
    # Not a slice assignment: numba would compile the message for slices that do not fit, which takes seconds.
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
    """Return the score that sorting would put at `place`; the scores are reordered.

    Hoare's selection ("Algorithm 65: Find", 1961). numba's `np.partition` takes seconds to compile.
    """
    left, right = 0, len(scores) - 1
    while left < right:
        pivot = scores[place]
        low, high = left, right
        # Neither leaves the array: each stops at the pivot, at a score that the other has swapped, or at NaN.
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
    """Return the ordinals of the passages whose MaxSim is worth computing, part after part.

    Parameters
    ----------
    table
        The result of `part_table`.
    scale_bytes, width, step, whole
        As in `Tokens`.
    query, levels
        `Query`, and its levels as *Shape:* (centroids, lanes).
    centroids
        The number of centroids, without the padding.
    probes
        Consider only passages near this many of the best centroids per query token; 0 for all passages.
    wanted
        The number of passages to keep by their centroids.
    slack
        As in `nearly`.
    kept
        The number of passages to keep after that.
    bounds
        Written. Int64, *Shape:* (parts + 1,): the end of each part's passages.

    Returns
    -------
    numpy.ndarray
        Int32: at least as many as are to be kept, if there are so many.
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
        # Where the lists name too few, all passages are considered.
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
