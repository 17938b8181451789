"""Long texts in overlapping windows of tokens (MaxP: Dai and Callan, SIGIR 2019, arXiv:1905.09217)."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rerank_integrations.core.checks import whole_number
from rerank_integrations.errors import InvalidInputError

Span = tuple[int, int]

_LEAST = 8
# A word that is cut in two may take a token or two more than it did whole.
_SLACK = 2


@dataclass(frozen=True)
class Windows:
    """How long texts are cut into windows.

    Parameters
    ----------
    size
        Most tokens in a window.
    stride
        Most tokens from the start of one window to that of the next, at most `size`.
    """

    size: int
    stride: int

    def within(self, room: int) -> Windows:
        """Return windows that a model reads whole which reads `room` tokens; the share that overlaps stays."""
        size = max(1, min(self.size, room - _SLACK))
        return Windows(size, max(1, self.stride * size // self.size))

    def spans(self, text: str, tokens: Sequence[Span]) -> list[Span]:
        """Return the character spans of the windows of `text`, which together hold all of it.

        A window starts and ends between words where words are shorter than half of it, and else between letters.

        Parameters
        ----------
        text
            What is to be cut.
        tokens
            Character span of each token, rising. Several tokens may be of one letter.

        Returns
        -------
        list of (start, end)
            Of a text that fits, the whole. None is empty but that of an empty text.
        """
        if len(tokens) <= self.size:
            return [(0, len(text))]
        letters = [place for place in range(1, len(tokens)) if _starts_letter(text, tokens, place)]
        words = [place for place in letters if _starts_word(text, tokens[place][0])]
        spans: list[Span] = []
        first = 0
        while first + self.size < len(tokens):
            last = _border(words, letters, first, self.size, first + self.size)
            spans.append((_start(tokens, first), _start(tokens, last)))
            # Never past the end of this window: every token is in one.
            first = min(last, _border(words, letters, first, self.stride, last))
        return _filled([*spans, (_start(tokens, first), len(text))])


def require_windows(window: int | None, stride: int | None) -> Windows | None:
    """Return the windows of these sizes in tokens, the stride half a window by default; ``None`` for no windows.

    Raises
    ------
    InvalidInputError
        For a `window` below 8, a `stride` that is not from 1 to `window`, or a `stride` alone.
    """
    if window is None:
        if stride is not None:
            raise InvalidInputError(f"stride is {stride!r} without a window; expected both, or a window alone")
        return None
    size = whole_number(window, "window", _LEAST)
    step = size // 2 if stride is None else whole_number(stride, "stride", 1)
    if step > size:
        raise InvalidInputError(f"stride is {stride!r}; expected a whole number from 1 to the window, {size}")
    return Windows(size, step)


def best_window(scores: Sequence[float], keys: Sequence[tuple[float, ...]] | None = None) -> int:
    """Return the place of the highest score, the first of equal ones; of a NaN, if there is one, so that it shows.

    By `keys`, where these are what the scores are rounded from.
    """
    by: Sequence[float] | Sequence[tuple[float, ...]] = scores if keys is None else keys
    return next((at for at, score in enumerate(scores) if math.isnan(score)), by.index(max(by)))


def _border(words: Sequence[int], letters: Sequence[int], first: int, most: int, end: int) -> int:
    """Return the last token, up to `most` after `first`, that starts a word or else a letter.

    If there is none, then the next one up to `end` that starts a letter, or else the one `most` after `first`.
    """
    for borders, least in ((words, first + most // 2), (letters, first)):
        found = bisect_right(borders, first + most) - 1
        if found >= 0 and borders[found] > least:
            return borders[found]
    after = bisect_right(letters, first + most)
    return letters[after] if after < len(letters) and letters[after] <= end else first + most


def _starts_letter(text: str, tokens: Sequence[Span], place: int) -> bool:
    start = tokens[place][0]
    # Of an emoji, each byte may be a token; a combining mark belongs to the letter before it.
    return start >= tokens[place - 1][1] and not _is_mark(text[start])


def _starts_word(text: str, start: int) -> bool:
    before = start - 1
    while before > 0 and _is_mark(text[before]):
        before -= 1
    # Chinese and Japanese words follow one another without a space: a border there too.
    return not (text[before].isalnum() and text[start].isalnum()) or unicodedata.east_asian_width(text[start]) in "WF"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _start(tokens: Sequence[Span], place: int) -> int:
    return tokens[place][0] if place else 0


def _filled(spans: Sequence[Span]) -> list[Span]:
    """Return the spans without empty ones, and without those that are all in the one before."""
    kept: list[Span] = []
    for span in spans:
        if span[0] < span[1] and (not kept or span[1] > kept[-1][1]):
            kept.append(span)
    return kept
