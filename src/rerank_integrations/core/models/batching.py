"""Batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class PairCut(NamedTuple):
    """Which sides of a pair are longer than what is read of them."""

    query: bool
    text: bool


def pair_cut(query: int, text: int, room: int) -> PairCut:
    """Return what "longest first" truncation cuts of a pair, as Hugging Face tokenizers do it.

    Parameters
    ----------
    query, text
        In tokens, without markers.
    room
        How many tokens of both are read, without markers.
    """
    if query + text <= room:
        return PairCut(False, False)
    # Neither is cut below half of the room; of an odd number the longer one has the odd token.
    half, more = room // 2, room - room // 2
    for_query, for_text = (more, half) if query > text else (half, more)
    return PairCut(query > max(room - text, for_query), text > max(room - query, for_text))


def text_room(query: int, room: int) -> int:
    """Return how many tokens of any text are read whole beside a `query` of so many, itself cut if need be."""
    return max(1, room - query, room // 2)


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
