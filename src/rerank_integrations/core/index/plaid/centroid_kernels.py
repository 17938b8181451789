"""The stages of PLAID search that look at centroids alone, and the codec's look-up, compiled by numba.

They hold no lock and no state, so any thread may call them. A query's tokens stand in lanes: columns of a row, padded
with zeros to whole vectors of 16 floats or 32 bytes. All arrays are contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rerank_integrations.core.index.plaid.jit import called, compiled, inlined
from rerank_integrations.core.index.plaid.simd import (
    BYTES,
    FLOATS,
    add,
    add_products,
    any_code_from,
    as_floats,
    larger,
    larger_bytes,
    load_bytes,
    load_floats,
    multiply_add,
    no_products,
    prefetch,
    repeat,
    smaller,
    store_as_bytes,
    store_bytes,
    store_floats,
    where_less,
)


@inlined
def code_at(codes: Any, token: Any) -> Any:
    """Return a token's centroid; with an unsigned index numba does not check the sign."""
    return np.intp(codes[np.uintp(token)])


@inlined
def require_rows(codes: Any, start: Any, end: Any, count: Any) -> None:
    """Raise unless tokens name centroids below `count`; the loops that read by them do not check."""
    bad = False
    if count < 1 << 16:
        if end - start < BYTES:
            for token in range(start, end):
                bad |= code_at(codes, token) >= count
        else:
            for token in range(start, end, BYTES):
                bad |= any_code_from(codes, min(token, end - BYTES), count)
    if bad:
        raise IndexError("a token names a centroid that does not exist")


@inlined
def _write_level(sums: Any, factors: Any, shifts: Any, block: Any, levels: Any, place: Any) -> None:
    zero = repeat(np.float32(0.0))
    level = multiply_add(as_floats(sums), load_floats(factors, block), load_floats(shifts, block))
    store_as_bytes(levels, place, smaller(larger(level, zero), repeat(np.float32(255.0))))


@compiled
def centroid_levels(centroids: Any, columns: Any, factors: Any, shifts: Any, levels: Any) -> None:
    """Score every centroid for every query token, in 255 levels.

    Parameters
    ----------
    centroids
        Uint8, *Shape:* (centroids, dim), flat; the number of them is a multiple of 4, and so is dim.
    columns
        The query's tokens, signed bytes as uint8, *Shape:* (blocks, dim / 4, 16, 4), flat.
    factors, shifts
        Factors and summands that turn a query token's products into levels: float32, *Shape:* (16 * blocks,).
    levels
        Written. Uint8, *Shape:* (centroids, lanes), where lanes are whole vectors of bytes that hold all blocks.
    """
    count, lanes = levels.shape
    dim = centroids.size // count
    flat = levels.reshape(-1)
    blocks = len(factors) // FLOATS
    zero = repeat(np.float32(0.0))
    # Two blocks of columns at a time: a pass over the centroids costs little more for both.
    for block in range(0, blocks, 2):
        one, other = block * FLOATS, min(block + 1, blocks - 1) * FLOATS
        for first in range(0, count, 4):
            a = b = c = d = e = f = g = h = no_products()
            base = first * dim
            for i in range(0, dim, 4):
                row, column = base + i, one * dim + i * FLOATS
                a = add_products(a, centroids, row, columns, column)
                b = add_products(b, centroids, row + dim, columns, column)
                c = add_products(c, centroids, row + 2 * dim, columns, column)
                d = add_products(d, centroids, row + 3 * dim, columns, column)
                if other != one:
                    column = other * dim + i * FLOATS
                    e = add_products(e, centroids, row, columns, column)
                    f = add_products(f, centroids, row + dim, columns, column)
                    g = add_products(g, centroids, row + 2 * dim, columns, column)
                    h = add_products(h, centroids, row + 3 * dim, columns, column)
            place = first * lanes + one
            _write_level(a, factors, shifts, one, flat, place)
            _write_level(b, factors, shifts, one, flat, place + lanes)
            _write_level(c, factors, shifts, one, flat, place + 2 * lanes)
            _write_level(d, factors, shifts, one, flat, place + 3 * lanes)
            place += FLOATS
            if other != one:
                _write_level(e, factors, shifts, other, flat, place)
                _write_level(f, factors, shifts, other, flat, place + lanes)
                _write_level(g, factors, shifts, other, flat, place + 2 * lanes)
                _write_level(h, factors, shifts, other, flat, place + 3 * lanes)
            else:
                for number in range(4):
                    store_as_bytes(flat, place + number * lanes, zero)


@inlined
def fetch_passage(codes: Any, offsets: Any, places: Any, number: Any) -> None:
    """Fetch the codes of a passage into the cache, if there is such a passage: they lie anywhere in memory."""
    if number < len(places):
        for token in range(offsets[places[number]], offsets[places[number] + 1], 32):
            prefetch(codes, token)


@called
def approximate(codes: Any, offsets: Any, places: Any, levels: Any, out: Any) -> None:
    """Score passages by their tokens' centroids alone.

    Parameters
    ----------
    codes
        Uint16, *Shape:* (tokens,).
    offsets
        Int64, *Shape:* (passages + 1,).
    places
        The ordinals of the passages, int32.
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
        fetch_passage(codes, offsets, places, number + 2)
        require_rows(codes, start, end, count)
        total = np.int32(0)
        for block in range(0, lanes if end > start else 0, BYTES):
            top = load_bytes(flat, code_at(codes, start) * lanes + block)
            for token in range(start + 1, end):
                top = larger_bytes(top, load_bytes(flat, code_at(codes, token) * lanes + block))
            store_bytes(best, 0, top)
            for lane in range(BYTES):
                total += best[lane]
        out[number] = total


@called
def best_centroids(levels: Any, rows: Any, lanes: Any, count: Any, chosen: Any) -> None:
    """Mark, for each of the first `lanes` query tokens, its `count` best centroids of the first `rows`.

    Parameters
    ----------
    levels
        The levels that `centroid_levels` writes; among equal ones the first are marked.
    chosen
        Written. Uint8, *Shape:* (centroids,): 1 for the marked ones.
    """
    tops = np.empty((lanes, count), dtype=np.int32)
    places = np.empty((lanes, count), dtype=np.int32)
    for lane in range(lanes):
        for slot in range(count):
            tops[lane, slot] = places[lane, slot] = -1
    for row in range(rows):
        for lane in range(lanes):
            level = np.int32(levels[row, lane])
            if level > tops[lane, count - 1]:
                slot = count - 1
                while slot > 0 and tops[lane, slot - 1] < level:
                    tops[lane, slot] = tops[lane, slot - 1]
                    places[lane, slot] = places[lane, slot - 1]
                    slot -= 1
                tops[lane, slot] = level
                places[lane, slot] = row
    for lane in range(lanes):
        for slot in range(count):
            if places[lane, slot] >= 0:
                chosen[places[lane, slot]] = 1


@called
def mark_listed(chosen: Any, list_starts: Any, listed: Any, marks: Any) -> None:
    """Mark the passages in the inverted lists of the `chosen` centroids (uint8, *Shape:* (centroids,)).

    Parameters
    ----------
    list_starts
        Int32, *Shape:* (centroids + 1,).
    listed
        Unsigned: passages, list after list.
    marks
        Written. Uint8, *Shape:* (passages,).
    """
    bad = False
    for centroid in range(len(chosen)):
        if chosen[centroid]:
            for place in range(list_starts[centroid], list_starts[centroid + 1]):
                passage = np.uintp(listed[place])
                if passage < len(marks):
                    marks[passage] = 1
                else:
                    bad = True
    if bad:
        raise IndexError("a list names a passage that does not exist")


@compiled
def query_tables(
    query: Any,
    centroid_unit: Any,
    centroid_error: Any,
    longest_centroid: Any,
    word_unit: Any,
    word_error: Any,
    longest_words: Any,
    whole: Any,
    floats: Any,
    signed: Any,
    facts: Any,
) -> Any:
    """Lay a query's tokens out as columns, in floats and in bytes, and return the score of one level.

    Parameters
    ----------
    query
        Float32, *Shape:* (query tokens, dim).
    centroid_unit, centroid_error, longest_centroid, word_unit, word_error, longest_words
        As in `cpu_query.ByteCodec`.
    whole
        As in `token_kernels.Tokens`.
    floats
        Written. Float32 zeros, *Shape:* (blocks, wide, 16).
    signed
        Written. Int8 zeros, *Shape:* (blocks, dim / 4, 16, 4).
    facts
        Written. Float32 zeros, *Shape:* (6, 16 * blocks): of each token units and shifts of products with codewords,
        the margins of `token_kernels.Query`, factors and shifts of products with centroids.
    """
    longest = np.float32(0.0)
    for token in range(len(query)):
        square = np.float32(0.0)
        for i in range(query.shape[1]):
            square += query[token, i] * query[token, i]
        longest = max(longest, np.sqrt(square))
    level_unit = max(longest * longest_centroid, np.float32(1e-6)) / np.float32(255.0)
    facts[2, len(query) :] = -np.inf
    for token in range(len(query)):
        block, lane = token // FLOATS, token % FLOATS
        largest = np.float32(1e-30)
        for i in range(query.shape[1]):
            largest = max(largest, abs(query[token, i]))
        # A scale for each query token, as one may be longer than another.
        unit = largest / np.float32(127.0)
        total = square = off = np.float32(0.0)
        for i in range(query.shape[1]):
            value = query[token, i]
            byte = np.rint(value / unit)
            floats[block, i, lane] = value
            signed[block, i // 4, lane, i % 4] = np.int8(byte)
            total += byte
            square += value * value
            off += (value - byte * unit) ** 2
        length, off = np.sqrt(square), np.sqrt(off)
        # Bytes of centroids and codewords are 128 more than what they stand for.
        facts[0, token] = unit * word_unit
        facts[1, token] = np.float32(-128.0) * total * unit * word_unit
        # Float32 sums are off by far less than the hundredth.
        level_margin = np.float32(1.01) * (level_unit + length * centroid_error + off * longest_centroid)
        words_margin = np.float32(1.01) * (length * word_error + off * longest_words)
        # A scale of the whole vector is the centroid's too.
        facts[2, token] = np.float32(0.0) if whole else level_margin
        facts[3, token] = words_margin + (level_margin if whole else np.float32(0.0))
        facts[4, token] = unit * centroid_unit / level_unit
        facts[5, token] = np.float32(-128.0) * total * unit * centroid_unit / level_unit
    return level_unit


@compiled
def nearest_codewords(vectors: Any, columns: Any, half_norms: Any, numbers: Any, out: Any) -> None:
    """Find the nearest of 256 codewords to each short vector.

    Parameters
    ----------
    vectors
        Float32, *Shape:* (n, m).
    columns
        The codewords. Float32, *Shape:* (m, 256), flat.
    half_norms
        Half of the codewords' squared norms. Float32, *Shape:* (256,).
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


@compiled
def measure_lengths(centroids: Any, codebook: Any, codes: Any, residuals: Any, lengths: Any) -> None:
    """Measure decompressed tokens of scale 1: the length of centroid and residual together.

    Parameters
    ----------
    centroids, codebook
        As in `codecs.Codec`.
    codes, residuals
        As in `codecs.Codes`.
    lengths
        Written. Float32, *Shape:* (tokens,).
    """
    size = codebook.shape[1]
    for token in range(len(codes)):
        centroid = codes[token]
        square = 0.0
        for place in range(residuals.shape[1]):
            word = residuals[token, place]
            for i in range(size):
                value = centroids[centroid, place * size + i] + codebook[word, i]
                square += value * value
        lengths[token] = np.sqrt(square)
