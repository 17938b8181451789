"""Lengths of texts in tokens: what is cut, the warning of it, and batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rerank_integrations.errors import TruncationWarning, warn_user


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


# So many tokens a tokenizer takes as a limit that is none.
UNLIMITED = 2**31 - 1


def length_remedy(name: str, limit: int, most: int, otherwise: str) -> str:
    """Return what helps against texts that are cut to `limit` tokens, where the model can read `most`.

    Parameters
    ----------
    name
        The argument that sets the limit.
    otherwise
        What helps in any case.
    """
    if most >= UNLIMITED:
        return f"raise {name}, or {otherwise}"
    if limit < most:
        return f"raise {name} (this model reads up to {most} tokens), or {otherwise}"
    return f"this model reads no more than {most}: {otherwise}"


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
        warn_user(
            f"{len(cut)} of {len(lengths)} {kind} were cut to {limit} tokens (the longest has {max(cut)}); {remedy}",
            TruncationWarning,
        )
