"""Compressed segments: from codes to files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.folders import Folders
from rerank_integrations.core.index.plaid.codec import Codec, Codes
from rerank_integrations.core.index.segments import SegmentRecord, write_segment

# Fewer tokens are scanned faster than their lists are read.
_LISTED_FROM = 1 << 16


def write_compressed(folders: Folders, codec: Codec, codes: Codes, lengths: NDArray[np.int32]) -> SegmentRecord:
    """Write a segment of compressed passages, with the inverted lists of a large one.

    Raises
    ------
    IndexWriteError
        If the operating system refuses; nothing is left behind.
    """
    arrays: dict[str, NDArray[Any]] = {
        "codes": codes.centroids,
        "residuals": codes.residuals,
        "scales": codes.scales,
    }
    if len(codes.centroids) >= _LISTED_FROM:
        arrays["list_starts"], arrays["listed"] = inverted_lists(codes.centroids, lengths, len(codec.centroids))
    return write_segment(folders, arrays, lengths, codec.name)


def inverted_lists(
    codes: NDArray[np.uint16], lengths: NDArray[np.int32], centroids: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return, centroid after centroid, the passages in which it occurs.

    Returns
    -------
    tuple
        Starts, int32, *Shape:* (centroids + 1,), and ordinals, uint16 if they fit, else uint32.
    """
    owners = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    # One sort of (centroid, passage) pairs, each kept once.
    pairs = np.unique(codes.astype(np.int64) * len(lengths) + owners)
    starts = np.searchsorted(pairs, np.arange(centroids + 1, dtype=np.int64) * len(lengths)).astype(np.int32)
    small = len(lengths) <= np.iinfo(np.uint16).max
    return starts, (pairs % len(lengths)).astype(np.uint16 if small else np.uint32)
