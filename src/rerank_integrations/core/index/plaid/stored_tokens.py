"""A segment's tokens and a query, as the loops take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from rerank_integrations.core.index.plaid.jit import inlined
from rerank_integrations.core.index.plaid.simd import at_address
from rerank_integrations.core.index.segments import PlaidSegment


class Tokens(NamedTuple):
    """A segment's compressed passages.

    Parameters
    ----------
    codes, residuals, scales
        Uint16 *Shape:* (tokens,), uint8 *Shape:* (tokens * width,), uint8 *Shape:* (tokens * scale_bytes,).
    scale_bytes, width
        Bytes of a scale, 1 or 2, and of a residual.
    offsets
        Int64, *Shape:* (passages + 1,).
    step
        What one unit of `scales` is.
    whole
        Whether the scale is of the whole vector, or of its residual alone.
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
    """A query in bytes, of blocks of 16 tokens, the last one filled up with zeros.

    Parameters
    ----------
    levels
        Of `kernels.centroid_levels`, flat.
    lanes
        How many of them a centroid has.
    level_unit
        The score of one level.
    words
        Codewords as unsigned bytes, 1, 2, 4 or 8 of them in an unsigned number; *Shape:* (256,).
    columns
        As of `kernels.centroid_levels`.
    units, shifts
        What makes scores of a query token's products with codewords: float32, *Shape:* (16 * blocks,).
    margins, scaled_margins
        How far a value may be from the truth, at most: as it is, and for a scale of 1. Float32, *Shape:*
        (16 * blocks,); minus infinity and 0 for what fills up.
    tokens
        How many query tokens there are.
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


# A segment's row: where its codes, residuals, scales and offsets are, and how many passages it has.
_CODES, _RESIDUALS, _SCALES, _OFFSETS, PASSAGES, ROW = range(6)
# numba's types do not name it.
carray: Any = numba.carray  # type: ignore[attr-defined]


def segment_row(segment: PlaidSegment) -> list[int]:
    """Return where a segment's arrays are: by address, the loops are compiled once for mapped and for other arrays."""
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
    # Without a branch, and of a single byte the same twice.
    first, more = np.intp(token) * stored.scale_bytes, stored.scale_bytes - 1
    low, high = np.intp(stored.scales[np.uintp(first)]), np.intp(stored.scales[np.uintp(first + more)])
    return np.float32(np.int32(low + 256 * high * more)) * stored.step
