"""What is read of a query and a passage that together are too long: the longer of the two is cut first."""

from __future__ import annotations

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
