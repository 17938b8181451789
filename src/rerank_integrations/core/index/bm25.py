"""BM25 of the passages of one commit, from the text index of its catalog.

The score of a passage is a sum over the distinct terms of the query::

    idf · tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean length))
    idf = ln(1 + (N - df + 0.5) / (df + 0.5))

``tf`` counts the term in the passage, ``length`` the passage's terms, ``df`` the passages with the term, ``N`` all
passages. This idf is Lucene's, which is never negative. A filter leaves ``N``, ``df`` and the mean as they are: it
restricts what may be returned, not what a word is worth.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index.storage.catalog import ReadTransaction
from rerank_integrations.core.index.storage.terms import QueryTerm, query_terms
from rerank_integrations.core.index.storage.text_index import stemmed
from rerank_integrations.core.ranking import score_of_best

K1, B = 1.2, 0.75
# Reading a frequent term of a large index takes longer than adding its scores up, and the same terms come again.
_MAX_REMEMBERED_BYTES = 1 << 26

Scores: TypeAlias = NDArray[np.float64]
# The positions of the passages with a term, rising, and what the term adds to the score of each.
_Postings: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32]]


class BM25:
    """Scores of the passages of one commit; any number of threads may use it, each with its own transaction."""

    def __init__(self, transaction: ReadTransaction) -> None:
        self.pids, lengths = transaction.text_lengths()
        mean = lengths.mean() if len(lengths) else 1.0
        self._norms = (K1 * (1 - B + B * lengths / max(mean, 1e-9))).astype(np.float64)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[QueryTerm, _Postings] = OrderedDict()
        self._bytes = 0

    def scores(self, transaction: ReadTransaction, query: str) -> Scores:
        """Return the score of each of `pids`, 0.0 for a passage without any term of the query."""
        scores = np.zeros(len(self.pids))
        for term in stemmed(query_terms(query)):
            positions, parts = self._postings(transaction, term)
            scores[positions] += parts
        return scores

    def positions(self, pids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where `pids` stand among `self.pids`; those that are unknown are absent."""
        positions = np.searchsorted(self.pids, pids)
        known = positions < len(self.pids)
        known[known] = self.pids[positions[known]] == pids[known]
        selected: NDArray[np.int64] = positions[known]
        return selected

    def _postings(self, transaction: ReadTransaction, term: QueryTerm) -> _Postings:
        with forks_held_off(), self._lock:
            postings = self._remembered.get(term)
            if postings is not None:
                self._remembered.move_to_end(term)
                return postings
        postings = self._read(transaction, term)
        size = _size(postings)
        with forks_held_off(), self._lock:
            if term not in self._remembered and size <= _MAX_REMEMBERED_BYTES:
                self._remembered[term] = postings
                self._bytes += size
                while self._bytes > _MAX_REMEMBERED_BYTES:
                    self._bytes -= _size(self._remembered.popitem(last=False)[1])
        return postings

    def _read(self, transaction: ReadTransaction, term: QueryTerm) -> _Postings:
        pids, counts = np.unique(transaction.occurrences(term), return_counts=True)
        positions = self.positions(pids)
        if len(positions) < len(pids):
            # Left behind by a damaged text that was replaced: no passage of this commit.
            counts = counts[np.isin(pids, self.pids)]
        df = len(positions)
        idf = np.log1p((len(self.pids) - df + 0.5) / (df + 0.5))
        parts = idf * counts * (K1 + 1) / (counts + self._norms[positions])
        return positions.astype(np.int32), parts.astype(np.float32)


def best_positions(scores: Scores, allowed: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
    """Return the positions of the best `count` positive scores, and of all that tie with the last, in no order."""
    eligible = np.flatnonzero(scores > 0) if allowed is None else allowed[scores[allowed] > 0]
    reached: NDArray[np.int64] = eligible[scores[eligible] >= score_of_best([scores[eligible]], count)]
    return reached


def _size(postings: _Postings) -> int:
    return sum(array.nbytes for array in postings)
