"""Batches by token budget, and the one warning about texts that were cut."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from rerank_integrations.errors import TruncationWarning

# What more tokens at once compute leaves a processor's caches: with 8,192 all-MiniLM-L6 takes half as long again.
_CPU_TOKENS = 1024


def token_budget_batches(
    lengths: Sequence[int], batch_size: int, device: str, at_least: int = 1
) -> Iterator[list[int]]:
    """Yield positions, longest first, in batches whose padded size stays under ``batch_size * 256`` tokens.

    On a CPU under 1,024 tokens, and small enough that there are `at_least` batches if the lengths allow it. Sorting by
    length keeps padding small; the longest come first so that a lack of memory shows at once.
    """
    budget = batch_size * 256
    if device == "cpu":
        budget = min(budget, _CPU_TOKENS, -(-sum(lengths) // at_least))
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
        self._said: dict[str, object] = {}

    def check(self, kind: str, lengths: Sequence[int], limit: int, remedy: str) -> None:
        """Warn (`TruncationWarning`) if some of `lengths` (tokens) exceed `limit`, once a `kind`."""
        cut = [length for length in lengths if length > limit]
        if not cut:
            return
        # One step of the interpreter's, so that no thread comes between, and nothing is locked where a process forks.
        turn = object()
        if self._said.setdefault(kind, turn) is not turn:
            return
        warnings.warn(
            f"{len(cut)} of {len(lengths)} {kind} were cut to {limit} tokens (the longest has {max(cut)}); {remedy}",
            TruncationWarning,
            stacklevel=2,
        )
