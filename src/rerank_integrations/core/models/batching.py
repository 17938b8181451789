"""Batches by token budget, and the one warning about texts that were cut."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence

from rerank_integrations.errors import TruncationWarning

# What more tokens at once compute leaves a processor's caches: with 8,192 all-MiniLM-L6 takes half as long again.
_CPU_TOKENS = 1024


def token_budget_batches(lengths: Sequence[int], batch_size: int, device: str) -> Iterator[list[int]]:
    """Yield positions, longest first, in batches whose padded size stays under ``batch_size * 256`` tokens.

    On a CPU under 1,024 tokens. Sorting by length keeps padding small; the longest come first so that a lack of memory
    shows at once.
    """
    budget = batch_size * 256 if device != "cpu" else min(batch_size * 256, _CPU_TOKENS)
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        width = lengths[batch[0]] if batch else lengths[position]
        if batch and (len(batch) + 1) * width > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


class TruncationNotice:
    """Warns the first time that a model cuts texts of a kind, with the counts of that call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def check(self, kind: str, lengths: Sequence[int], limit: int, remedy: str) -> None:
        """Warn (`TruncationWarning`) if some of `lengths` (tokens) exceed `limit`, once a `kind`."""
        cut = [length for length in lengths if length > limit]
        if not cut:
            return
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        warnings.warn(
            f"{len(cut)} of {len(lengths)} {kind} were cut to {limit} tokens (the longest has {max(cut)}); {remedy}",
            TruncationWarning,
            stacklevel=2,
        )
