"""Token vectors of texts that were encoded before, bounded in bytes."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from rerank_integrations.core.forking import forks_held_off
from rerank_integrations.core.maxsim import Floats

# What an entry takes beside its vectors: its key, the array's header, the dictionary's slot.
_OVERHEAD = 384


class VectorCache:
    """Keeps the vectors that were used last; any number of threads may use it.

    Parameters
    ----------
    max_bytes
        How much all entries may take together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Floats] = OrderedDict()
        self._held = 0

    def get(self, text: str) -> Floats | None:
        """Return the vectors of `text`, or ``None`` if they are not here."""
        key = _key(text)
        with forks_held_off(), self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, text: str, vectors: Floats) -> None:
        """Keep the vectors of `text`; those unused for longest go. What is larger than the whole is not kept."""
        size = _size(vectors)
        if size > self._max_bytes:
            return
        # Always a copy: a view would keep its whole batch alive, and an encoder may write into an array of its own.
        kept = np.array(vectors, dtype=np.float32, order="C")
        key = _key(text)
        with forks_held_off(), self._lock:
            old = self._entries.pop(key, None)
            self._held += size - (0 if old is None else _size(old))
            self._entries[key] = kept
            while self._held > self._max_bytes:
                _, gone = self._entries.popitem(last=False)
                self._held -= _size(gone)


def _size(vectors: Floats) -> int:
    return 4 * vectors.size + _OVERHEAD


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
