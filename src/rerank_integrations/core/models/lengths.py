"""Lengths of texts in tokens: truncation, the warning about it, and batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rerank_integrations.errors import TruncationWarning, warn_user


class PairCut(NamedTuple):
    """The sides of a pair that are truncated."""

    query: bool
    text: bool


def pair_cut(query: int, text: int, room: int) -> PairCut:
    """Return the sides that "longest first" truncation cuts, as Hugging Face tokenizers do it.

    Parameters
    ----------
    query, text
        Lengths in tokens, without markers.
    room
        The number of tokens of both that are read, without markers.
    """
    if query + text <= room:
        return PairCut(False, False)
    # Neither side is cut below half of the room; an odd token goes to the longer one.
    smaller, larger = room // 2, room - room // 2
    for_query, for_text = (larger, smaller) if query > text else (smaller, larger)
    return PairCut(query > max(room - text, for_query), text > max(room - query, for_text))


def text_room(query: int, room: int) -> int:
    """Return the text length that is never truncated beside a query of `query` tokens, itself cut if need be."""
    return max(1, room - query, room // 2)


# The intermediate results of more tokens do not fit into a processor's caches: with 8,192, all-MiniLM-L6 takes half as
# long again.
_MAX_CPU_TOKENS_PER_BATCH = 1024


def token_budget_batches(
    lengths: Sequence[int], batch_size: int, device: str, at_least: int = 1
) -> Iterator[list[int]]:
    """Yield positions, longest first, in batches whose padded size stays under ``batch_size * 256`` tokens.

    On a CPU the limit is 1,024 tokens, or less so that there are `at_least` batches if the lengths allow it. Sorting by
    length keeps padding small; the longest come first so that a lack of memory shows at once.
    """
    budget = batch_size * 256
    if device == "cpu":
        budget = min(budget, _MAX_CPU_TOKENS_PER_BATCH, -(-sum(lengths) // at_least))
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        width = lengths[batch[0]] if batch else lengths[position]
        if batch and (len(batch) + 1) * width > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


# The largest limit that tokenizers accept: no text has so many tokens.
UNLIMITED = 2**31 - 1


def length_remedy(name: str, limit: int, most: int, otherwise: str) -> str:
    """Return the advice of a warning that texts are cut to `limit` tokens, where the model can read `most`.

    Parameters
    ----------
    name
        The argument that sets the limit.
    otherwise
        Advice that helps in any case.
    """
    if most >= UNLIMITED:
        return f"raise {name}, or {otherwise}"
    if limit < most:
        return f"raise {name} (this model reads up to {most} tokens), or {otherwise}"
    return f"this model reads no more than {most}: {otherwise}"


class TruncationNotice:
    """Warn the first time that a model cuts texts of a kind, with the counts of that call."""

    def __init__(self) -> None:
        self._warned_by: dict[str, object] = {}

    def check(self, kind: str, lengths: Sequence[int], limit: int, remedy: str) -> None:
        """Warn once per `kind` (`TruncationWarning`) if some of `lengths`, in tokens, exceed `limit`."""
        cut = [length for length in lengths if length > limit]
        if not cut:
            return
        # setdefault is atomic in the interpreter, so no lock is needed that a fork could copy while it is locked.
        call = object()
        if self._warned_by.setdefault(kind, call) is not call:
            return
        warn_user(
            f"{len(cut)} of {len(lengths)} {kind} were cut to {limit} tokens (the longest has {max(cut)}); {remedy}",
            TruncationWarning,
        )
