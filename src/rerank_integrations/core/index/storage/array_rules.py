"""Rules that the compiled loops rely on for the arrays of a compressed index, checked before the loops run.

The loops of `plaid.centroid_kernels` and `plaid.token_kernels` read and write by address and check next to nothing, so
an array that breaks a rule here would end the process. All rules stand in this module. Arrays come from files, and
whoever can write a file can write its checksum too.

- The padded dimension is a multiple of 8: `query_tables` and `centroid_levels` take 4 dimensions at a time,
  `token_kernels._sums` 8, `_raise_by` pairs, and `_decompress` reads the last 8 by themselves.
- The codebook is float32 of (256, 1, 2, 4 or 8): words of `cpu_query.byte_codec` are unsigned numbers of so many bytes,
  and `simd.load_sixteen` reads a row for each byte of a residual.
- A residual has as many bytes as the padded dimension has rows of the codebook: `_sums` and `_decompress`
  read that many.
- There are 1 to 65,536 centroids: `code_at` reads uint16 codes; `centroid_levels` pads to a multiple of 4.
- Numbers are finite and no larger than float16's: then the products of `query_tables` and `_value` are finite too. (A
  query may still be too long for that; `token_kernels._bound` takes a number that is none for no winner.)
- Codes, residuals and scales have the codec's dtypes, in native byte order, aligned, contiguous:
  `token_kernels.part_table` passes their addresses alone.
- Lengths are not negative and add up to the tokens: `approximate`, `nearly` and `maxsim` read a passage's
  tokens unchecked.
- A passage has at most 2^24 tokens: `token_kernels._bound` keeps a token's number in a float32.
- List starts are int32, rise from 0 to the number of listed passages and are one more than the centroids: `mark_listed`
  reads ``listed[list_starts[c] : list_starts[c + 1]]``.

Two rules would need whole arrays to be read, so the loops check them where they have the numbers in the cache anyway:
codes below the number of centroids (`centroid_kernels.require_rows`) and listed passages below the number of passages
(`centroid_kernels.mark_listed`). `code_problem` checks them in full, for `verify`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.storage.codecs import Codec
from rerank_integrations.core.index.storage.segments import PlaidSegment

MAX_CENTROIDS = 1 << 16
_MAX_PASSAGE_TOKENS = 1 << 24
_DIMENSIONS_PER_BYTE = (1, 2, 4, 8)
_LARGEST = float(np.finfo(np.float16).max)
# Numbers that a check reads at a time.
_BLOCK = 1 << 20


def codec_problem(codec: Codec) -> str | None:
    """Return the rule that a codec breaks, as a sentence; ``None`` for a sound one."""
    dim, padded = codec.rotation.shape
    count, per_byte = len(codec.centroids), codec.codebook.shape[1]
    if padded % 8 or not 1 <= dim <= padded:
        return f"its rotation is of shape {codec.rotation.shape}; expected a multiple of 8, and no more rows than that"
    if per_byte not in _DIMENSIONS_PER_BYTE:
        return f"its codebook has {per_byte} dimensions per byte; expected 1, 2, 4 or 8"
    if not 1 <= count <= MAX_CENTROIDS or codec.centroids.shape[1] != padded:
        return (
            f"its centroids are of shape {codec.centroids.shape}; expected 1 to {MAX_CENTROIDS} of {padded} dimensions"
        )
    for name, array in (("rotation", codec.rotation), ("codebook", codec.codebook), ("centroids", codec.centroids)):
        # For NaN neither comparison is true.
        if not (array.min() >= -_LARGEST and array.max() <= _LARGEST):
            return f"its {name} holds numbers that are not finite, or larger than {_LARGEST:.0f}"
    if not 0 < codec.step <= _LARGEST:
        return f"its step is {codec.step!r}; expected a number above 0"
    return None


def segment_problem(segment: PlaidSegment, codec: Codec) -> str | None:
    """Return the rule that a segment of this codec breaks; reads no whole array but its list starts."""
    tokens = len(segment.codes)
    wanted: list[tuple[str, NDArray[np.generic], type[np.generic], tuple[int, ...]]] = [
        ("codes", segment.codes, np.uint16, (tokens,)),
        ("residuals", segment.residuals, np.uint8, (tokens, codec.residual_bytes)),
        ("scales", segment.scales, codec.scale_type, (tokens,)),
    ]
    for name, array, dtype, shape in wanted:
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous or not array.flags.aligned:
            return f"its {name} are {array.dtype} of shape {array.shape}; expected {np.dtype(dtype)} of {shape}"
    lengths = np.diff(segment.offsets)
    if segment.offsets[0] != 0 or segment.offsets[-1] != tokens or lengths.min(initial=0) < 0:
        return f"its lengths do not add up to its {tokens} tokens"
    if lengths.max(initial=0) > _MAX_PASSAGE_TOKENS:
        return f"a passage of it has {lengths.max()} tokens; expected at most {_MAX_PASSAGE_TOKENS}"
    return None if segment.list_starts is None else _list_problem(segment, len(codec.centroids))


def _list_problem(segment: PlaidSegment, centroids: int) -> str | None:
    starts, listed = segment.list_starts, segment.listed
    if starts is None or listed is None or listed.dtype not in (np.uint16, np.uint32) or not listed.flags.aligned:
        return "its lists are of another kind; expected uint16 or uint32"
    if starts.dtype != np.int32 or len(starts) != centroids + 1:
        return f"it has {len(starts) - 1} lists; expected {centroids}, one per centroid"
    if starts[0] != 0 or starts[-1] != len(listed) or (np.diff(starts.astype(np.int64)) < 0).any():
        return f"its lists do not rise from 0 to {len(listed)}"
    return None


def code_problem(segment: PlaidSegment, codec: Codec) -> str | None:
    """Return the rule that a code or a list of a segment breaks, as a sentence; reads all of them."""
    if _largest(segment.codes) >= len(codec.centroids):
        return f"a token of it names a centroid that does not exist; the codec has {len(codec.centroids)}"
    passages = len(segment.offsets) - 1
    if segment.listed is not None and _largest(segment.listed) >= passages:
        return f"a list of it names a passage that does not exist; it has {passages}"
    return None


def _largest(array: NDArray[np.uint16 | np.uint32]) -> int:
    blocks = range(0, len(array), _BLOCK)
    return max((int(array[start : start + _BLOCK].max()) for start in blocks), default=-1)
