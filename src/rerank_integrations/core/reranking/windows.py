"""Long texts cut into overlapping windows of tokens (MaxP: Dai and Callan, SIGIR 2019, arXiv:1905.09217)."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rerank_integrations.core.checks import whole_number
from rerank_integrations.errors import InvalidInputError

Span: TypeAlias = tuple[int, int]

_MIN_WINDOW_TOKENS = 8
# A word that is cut in two may have a token or two more than the whole word.
_TOKENS_PER_CUT_WORD = 2


@dataclass(frozen=True)
class Windows:
    """Sizes of the windows that long texts are cut into.

    Parameters
    ----------
    size
        The most tokens in a window.
    stride
        The most tokens from the start of one window to the start of the next, at most `size`.
    """

    size: int
    stride: int

    def within(self, room: int) -> Windows:
        """Return windows that fit a model which reads `room` tokens; the share that overlaps stays the same."""
        size = max(1, min(self.size, room - _TOKENS_PER_CUT_WORD))
        return Windows(size, max(1, self.stride * size // self.size))

    def spans(self, text: str, tokens: Sequence[Span]) -> list[Span]:
        """Return the character spans of the windows of `text`, which together cover all of it.

        A window starts and ends between words if words are shorter than half of it, else between letters.

        Parameters
        ----------
        text
            The text to cut.
        tokens
            Character span of each token, in rising order. Several tokens may belong to one letter.

        Returns
        -------
        list of (start, end)
            One span, of the whole text, if that fits. No span is empty but that of an empty text.
        """
        if len(tokens) <= self.size:
            return [(0, len(text))]
        letters = [token for token in range(1, len(tokens)) if _starts_letter(text, tokens, token)]
        words = [token for token in letters if _starts_word(text, tokens[token][0])]
        spans: list[Span] = []
        first = 0
        while first + self.size < len(tokens):
            last = _border(words, letters, first, self.size, first + self.size)
            spans.append((_start(tokens, first), _start(tokens, last)))
            # The next window never starts past the end of this one, so that every token is in a window.
            first = min(last, _border(words, letters, first, self.stride, last))
        return _without_needless([*spans, (_start(tokens, first), len(text))])


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
    size = whole_number(window, "window", _MIN_WINDOW_TOKENS)
    step = size // 2 if stride is None else whole_number(stride, "stride", 1)
    if step > size:
        raise InvalidInputError(f"stride is {stride!r}; expected a whole number from 1 to the window, {size}")
    return Windows(size, step)


def best_window(scores: Sequence[float], keys: Sequence[tuple[float, ...]] | None = None) -> int:
    """Return the position of the highest score, the first of equal ones; a NaN comes before all, so that it shows.

    With `keys`, which the scores are rounded from, return the position of the highest key.
    """
    compared: Sequence[float] | Sequence[tuple[float, ...]] = scores if keys is None else keys
    best = compared.index(max(compared))
    return next((position for position, score in enumerate(scores) if math.isnan(score)), best)


def _border(words: Sequence[int], letters: Sequence[int], first: int, most: int, end: int) -> int:
    """Return the last token, up to `most` after `first`, that starts a word or else a letter.

    Without such a token, return the next one up to `end` that starts a letter, or else the one `most` after `first`.
    """
    for borders, after in ((words, first + most // 2), (letters, first)):
        last = bisect_right(borders, first + most) - 1
        if last >= 0 and borders[last] > after:
            return borders[last]
    following = bisect_right(letters, first + most)
    return letters[following] if following < len(letters) and letters[following] <= end else first + most


def _starts_letter(text: str, tokens: Sequence[Span], token: int) -> bool:
    start = tokens[token][0]
    # Each byte of an emoji may be a token; a combining mark belongs to the letter before it.
    return start >= tokens[token - 1][1] and not _is_mark(text[start])


def _starts_word(text: str, start: int) -> bool:
    before = start - 1
    while before > 0 and _is_mark(text[before]):
        before -= 1
    # Chinese and Japanese words follow one another without a space, so each of their letters is a border.
    return not (text[before].isalnum() and text[start].isalnum()) or unicodedata.east_asian_width(text[start]) in "WF"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _start(tokens: Sequence[Span], token: int) -> int:
    return tokens[token][0] if token else 0


def _without_needless(spans: Sequence[Span]) -> list[Span]:
    """Return the spans without empty ones, and without those that lie within the one before."""
    needed: list[Span] = []
    for span in spans:
        if span[0] < span[1] and (not needed or span[1] > needed[-1][1]):
            needed.append(span)
    return needed
