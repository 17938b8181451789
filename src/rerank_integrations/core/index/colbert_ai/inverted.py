"""The inverted lists of colbert-ai's ``ivf.pid.pt``: for each centroid the passages that have a token of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class InvertedLists:
    """Collects chunks of tokens, in the order of the passages.

    Parameters
    ----------
    centroids
        How many there are.
    """

    def __init__(self, centroids: int) -> None:
        self._centroids = centroids
        self._chunks: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []

    def add(self, codes: NDArray[np.int32], lengths: NDArray[np.int32], first_pid: int) -> None:
        """Take in the tokens of consecutive passages; of a passage's tokens with one centroid a single entry stays."""
        pids = np.repeat(np.arange(first_pid, first_pid + len(lengths), dtype=np.int64), lengths)
        pairs = np.unique(codes.astype(np.int64) << 32 | pids)
        counts = np.bincount(pairs >> 32, minlength=self._centroids)
        self._chunks.append((counts, (pairs & 0xFFFFFFFF).astype(np.int32)))

    def build(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the lists one after the other, each ascending, and the length of each; forgets the chunks.

        Behind the last list there are zeros where colbert-ai, which reads lists as rows of the longest one's length,
        would otherwise have to copy everything when it opens the index.
        """
        lengths = np.zeros(self._centroids, np.int64)
        for counts, _ in self._chunks:
            lengths += counts
        offsets = np.cumsum(lengths) - lengths
        total, longest = int(lengths.sum()), int(lengths.max())
        lists = np.zeros(total + (longest if offsets[-1] + longest > total else 0), np.int32)
        ends = offsets.copy()
        for counts, pids in self._chunks:
            starts = np.cumsum(counts) - counts
            lists[np.repeat(ends - starts, counts) + np.arange(len(pids))] = pids
            ends += counts
        self._chunks.clear()
        return lists, lengths
