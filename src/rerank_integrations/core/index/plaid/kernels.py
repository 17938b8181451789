"""The inner loops of PLAID search, compiled by numba; they hold no lock and no state, so any thread may call them.

A query's tokens stand in lanes: columns of a row, padded with zeros to whole vectors of 16 floats or 32 bytes. All
arrays are contiguous. The look-up tables of `residual_table` follow WARP (Scheerer et al., 2025, arXiv:2501.17788).
"""

from __future__ import annotations

import contextlib
from typing import Any

import numba
import numpy as np

from rerank_integrations.core.index.plaid.simd import (
    BYTES,
    FLOATS,
    add,
    any_larger,
    larger,
    larger_bytes,
    load_bytes,
    load_floats,
    lowered,
    multiply_add,
    repeat,
    smaller,
    store_as_bytes,
    store_bytes,
    store_floats,
    where_less,
)


def _jit(function: Any) -> Any:
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    # Without a folder to write to, each process compiles for itself.
    with contextlib.suppress(RuntimeError):
        compiled.enable_caching()
    return compiled


_NOTHING = np.float32(-3e38)


@_jit
def _row(codes: Any, token: Any, count: Any) -> Any:
    code = np.intp(codes[token])
    if code >= count:
        # Damage; the loops read without looking.
        raise IndexError("a token names a centroid that does not exist")
    return code


@_jit
def _write_scores(value: Any, factor: Any, scores: Any, place: Any, levels: Any, level_place: Any) -> None:
    store_floats(scores, place, value)
    zero = repeat(np.float32(0.0))
    level = smaller(larger(multiply_add(value, repeat(factor), zero), zero), repeat(np.float32(255.0)))
    store_as_bytes(levels, level_place, level)


@_jit
def centroid_scores(centroids: Any, query: Any, ceiling: Any, scores: Any, levels: Any) -> None:
    """Score every centroid for every query token, as floats and as bytes.

    Parameters
    ----------
    centroids
        Float32, *Shape:* (centroids, dim), flat; the number of them is a multiple of 4.
    query
        Float32, *Shape:* (blocks, dim, 16), flat: the query's tokens as columns.
    ceiling
        The score that becomes 255; scores below 0 become 0.
    scores
        Written. Float32, *Shape:* (centroids, 16 * blocks).
    levels
        Written. Uint8, *Shape:* (centroids, lanes), with at least 16 * blocks lanes.
    """
    count, width = scores.shape
    dim = centroids.size // count
    lanes = levels.shape[1]
    flat, small = scores.reshape(-1), levels.reshape(-1)
    factor = np.float32(255.0) / ceiling
    blocks = width // FLOATS
    # Two blocks of columns at a time: a pass over the centroids costs little more for both.
    for block in range(0, blocks, 2):
        one, other = block * dim * FLOATS, min(block + 1, blocks - 1) * dim * FLOATS
        for first in range(0, count, 4):
            a = b = c = d = e = f = g = h = repeat(np.float32(0.0))
            base = first * dim
            for i in range(dim):
                p, q = repeat(centroids[base + i]), repeat(centroids[base + dim + i])
                r, s = repeat(centroids[base + 2 * dim + i]), repeat(centroids[base + 3 * dim + i])
                column = load_floats(query, one + i * FLOATS)
                a, b = multiply_add(p, column, a), multiply_add(q, column, b)
                c, d = multiply_add(r, column, c), multiply_add(s, column, d)
                if other != one:
                    column = load_floats(query, other + i * FLOATS)
                    e, f = multiply_add(p, column, e), multiply_add(q, column, f)
                    g, h = multiply_add(r, column, g), multiply_add(s, column, h)
            place, level = first * width + block * FLOATS, first * lanes + block * FLOATS
            _write_scores(a, factor, flat, place, small, level)
            _write_scores(b, factor, flat, place + width, small, level + lanes)
            _write_scores(c, factor, flat, place + 2 * width, small, level + 2 * lanes)
            _write_scores(d, factor, flat, place + 3 * width, small, level + 3 * lanes)
            if other != one:
                _write_scores(e, factor, flat, place + FLOATS, small, level + FLOATS)
                _write_scores(f, factor, flat, place + width + FLOATS, small, level + lanes + FLOATS)
                _write_scores(g, factor, flat, place + 2 * width + FLOATS, small, level + 2 * lanes + FLOATS)
                _write_scores(h, factor, flat, place + 3 * width + FLOATS, small, level + 3 * lanes + FLOATS)


@_jit
def approximate(codes: Any, offsets: Any, places: Any, levels: Any, out: Any) -> None:
    """Score passages by their tokens' centroids alone.

    Parameters
    ----------
    codes
        Uint16, *Shape:* (tokens,).
    offsets
        Int64, *Shape:* (passages + 1,).
    places
        Int32: which passages.
    levels
        Uint8, *Shape:* (centroids, lanes), lanes a multiple of 32.
    out
        Written. Float64, *Shape:* of `places`: MaxSim in steps of the levels.
    """
    count, lanes = levels.shape
    flat = levels.reshape(-1)
    best = np.empty(BYTES, dtype=np.uint8)
    for number in range(len(places)):
        start, end = offsets[places[number]], offsets[places[number] + 1]
        total = np.int32(0)
        for block in range(0, lanes if end > start else 0, BYTES):
            top = load_bytes(flat, _row(codes, start, count) * lanes + block)
            for token in range(start + 1, end):
                top = larger_bytes(top, load_bytes(flat, _row(codes, token, count) * lanes + block))
            store_bytes(best, 0, top)
            for lane in range(BYTES):
                total += best[lane]
        out[number] = total


@_jit
def residual_table(codebook: Any, query: Any, table: Any) -> None:
    """Fill the products of 16 query tokens with every value that a residual's byte can stand for.

    Parameters
    ----------
    codebook
        Float32, *Shape:* (256, m), flat.
    query
        Float32, *Shape:* (dim, 16), flat.
    table
        Written. Float32, *Shape:* (dim / m, 256, 16), flat.
    """
    m = codebook.size // 256
    for position in range(query.size // (FLOATS * m)):
        for value in range(256):
            product = repeat(np.float32(0.0))
            for i in range(m):
                column = load_floats(query, (position * m + i) * FLOATS)
                product = multiply_add(repeat(codebook[value * m + i]), column, product)
            store_floats(table, (position * 256 + value) * FLOATS, product)


@_jit
def _floor(codes: Any, start: Any, end: Any, levels: Any, lanes: Any, block: Any, slack: Any) -> Any:
    count = len(levels) // lanes
    top = load_bytes(levels, _row(codes, start, count) * lanes + block)
    for token in range(start + 1, end):
        top = larger_bytes(top, load_bytes(levels, _row(codes, token, count) * lanes + block))
    return lowered(top, slack)


@_jit
def _token_scores(residuals: Any, width: Any, table: Any, token: Any, scale: Any, whole: Any, centre: Any) -> Any:
    even = odd = repeat(np.float32(0.0))
    first = token * width
    for i in range(0, width - 1, 2):
        even = add(even, load_floats(table, (i * 256 + np.intp(residuals[first + i])) * FLOATS))
        odd = add(odd, load_floats(table, ((i + 1) * 256 + np.intp(residuals[first + i + 1])) * FLOATS))
    if width % 2:
        even = add(even, load_floats(table, ((width - 1) * 256 + np.intp(residuals[first + width - 1])) * FLOATS))
    if whole:
        return multiply_add(repeat(scale), add(centre, add(even, odd)), repeat(np.float32(0.0)))
    return multiply_add(repeat(scale), add(even, odd), centre)


@_jit
def add_maxsim(
    codes: Any,
    residuals: Any,
    scales: Any,
    step: Any,
    whole: Any,
    offsets: Any,
    places: Any,
    scores: Any,
    levels: Any,
    slack: Any,
    first: Any,
    lanes: Any,
    table: Any,
    out: Any,
) -> None:
    """Add to `out` the MaxSim of passages' decompressed tokens over up to 16 query tokens.

    Parameters
    ----------
    codes, residuals, scales
        Uint16 *Shape:* (tokens,), uint8 *Shape:* (tokens, bytes), unsigned *Shape:* (tokens,).
    step
        What one unit of `scales` is.
    whole
        Whether the scale is of the whole vector, or of its residual alone.
    offsets, places
        As of `approximate`.
    scores, levels
        Of `centroid_scores`.
    slack
        255 for MaxSim itself. With less, tokens whose centroids score lower than the passage's best by more than this
        many levels, for every query token, are left out: much faster, and nearly the same.
    first, lanes
        The first column of `scores` for these query tokens, and how many are tokens and not padding.
    table
        Of `residual_table`.
    out
        Float64, *Shape:* of `places`.
    """
    width = scores.shape[1]
    flat = scores.reshape(-1)
    all_bytes = residuals.reshape(-1)
    flat_levels = levels.reshape(-1)
    level_width = levels.shape[1]
    block = first // BYTES * BYTES
    best = np.empty(FLOATS, dtype=np.float32)
    for number in range(len(places)):
        start, end = offsets[places[number]], offsets[places[number] + 1]
        top = repeat(_NOTHING if end > start and slack == 255 else np.float32(-1.0))
        if end > start and slack < 255:
            floor = _floor(codes, start, end, flat_levels, level_width, block, np.uint8(slack))
        else:
            floor = load_bytes(flat_levels, 0)
        for token in range(start, end):
            code = _row(codes, token, len(scores))
            if slack < 255 and not any_larger(load_bytes(flat_levels, code * level_width + block), floor):
                continue
            scale = np.float32(scales[token]) * step
            centre = load_floats(flat, code * width + first)
            value = _token_scores(all_bytes, residuals.shape[1], table, token, scale, whole, centre)
            top = larger(top, value)
        store_floats(best, 0, top)
        total = 0.0
        for lane in range(lanes):
            total += best[lane]
        out[number] += total


@_jit
def best_centroids(scores: Any, lanes: Any, count: Any, chosen: Any) -> None:
    """Mark, for each of the first `lanes` query tokens, its `count` best centroids.

    Parameters
    ----------
    scores
        Float32, *Shape:* (centroids, width).
    chosen
        Written. Uint8, *Shape:* (centroids,): 1 for the marked ones.
    """
    tops = np.full((lanes, count), _NOTHING, dtype=np.float32)
    places = np.full((lanes, count), -1, dtype=np.int32)
    for row in range(len(scores)):
        for lane in range(lanes):
            score = scores[row, lane]
            if score > tops[lane, count - 1]:
                slot = count - 1
                while slot > 0 and tops[lane, slot - 1] < score:
                    tops[lane, slot] = tops[lane, slot - 1]
                    places[lane, slot] = places[lane, slot - 1]
                    slot -= 1
                tops[lane, slot] = score
                places[lane, slot] = row
    for place in places.reshape(-1):
        if place >= 0:
            chosen[place] = 1


@_jit
def mark_listed(chosen: Any, list_starts: Any, listed: Any, marks: Any) -> None:
    """Mark the passages in the inverted lists of the `chosen` centroids (uint8, *Shape:* (centroids,)).

    Parameters
    ----------
    list_starts
        Int32, *Shape:* (centroids + 1,).
    listed
        Unsigned: passages, list after list.
    marks
        Written. Bool, *Shape:* (passages,).
    """
    for centroid in range(len(chosen)):
        if chosen[centroid]:
            for place in range(list_starts[centroid], list_starts[centroid + 1]):
                if listed[place] >= len(marks):
                    raise IndexError("a list names a passage that does not exist")
                marks[listed[place]] = True


@_jit
def nearest_codewords(vectors: Any, columns: Any, half_norms: Any, numbers: Any, out: Any) -> None:
    """Find the nearest of 256 codewords to each short vector.

    Parameters
    ----------
    vectors
        Float32, *Shape:* (n, m).
    columns
        The codewords. Float32, *Shape:* (m, 256), flat.
    half_norms
        Half of their squared norms. Float32, *Shape:* (256,).
    numbers
        0.0 to 15.0, float32.
    out
        Written. Uint8, *Shape:* (n,).
    """
    n, m = vectors.shape
    distances = np.empty(FLOATS, dtype=np.float32)
    winners = np.empty(FLOATS, dtype=np.float32)
    lane_numbers = load_floats(numbers, 0)
    for row in range(n):
        best = repeat(np.float32(3e38))
        winner = repeat(np.float32(0.0))
        for first in range(0, 256, FLOATS):
            distance = load_floats(half_norms, first)
            for i in range(m):
                distance = multiply_add(repeat(-vectors[row, i]), load_floats(columns, i * 256 + first), distance)
            winner = where_less(distance, best, add(lane_numbers, repeat(np.float32(first))), winner)
            best = where_less(distance, best, distance, best)
        store_floats(distances, 0, best)
        store_floats(winners, 0, winner)
        lowest = 0
        for lane in range(1, FLOATS):
            if distances[lane] < distances[lowest]:
                lowest = lane
        out[row] = np.uint8(winners[lowest])
