"""Batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
