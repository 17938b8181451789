"""Long texts in overlapping windows of tokens (MaxP: Dai and Callan, SIGIR 2019, arXiv:1905.09217)."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from rerank_integrations.errors import InvalidInputError

Span = tuple[int, int]


def window_spans(text: str, tokens: Sequence[Span], window: int, stride: int) -> list[Span]:
    """Return the character spans of the windows of `text`, which overlap and together hold all of it.

    Parameters
    ----------
    text
        What is to be cut.
    tokens
        Character span of each token, rising.
    window
        Most tokens in a window, at least 1.
    stride
        Tokens from the start of one window to that of the next, 1 to `window`.

    Returns
    -------
    list of (start, end)
        Of text that fits, the whole. A window starts and ends between words where a word is shorter than half of it.
    """
    if len(tokens) <= window:
        return [(0, len(text))]
    borders = [place for place in range(len(tokens)) if _between_words(text, tokens, place)]
    spans: list[Span] = []
    first = 0
    while True:
        last = _snapped(borders, first + window // 2, first + window)
        if first + window >= len(tokens):
            spans.append((_start(text, tokens, first), len(text)))
            return spans
        spans.append((_start(text, tokens, first), _start(text, tokens, last)))
        # Never past the end of this window: every token is in one.
        first = min(last, max(first + 1, _snapped(borders, first + stride // 2, first + stride)))


def best_window(scores: Sequence[float]) -> int:
    """Return the place of the highest score, the first of equal ones; of a NaN, if there is one, so that it shows."""
    return next((at for at, score in enumerate(scores) if math.isnan(score)), scores.index(max(scores)))


def require_window(window: int | None, stride: int | None) -> tuple[int, int] | None:
    """Return window and stride in tokens, the stride half a window by default; ``None`` for no windows.

    Raises
    ------
    InvalidInputError
        For a `window` below 8, a `stride` that is not from 1 to `window`, or a `stride` alone.
    """
    if window is None:
        if stride is not None:
            raise InvalidInputError(f"stride is {stride!r} without a window; expected both, or a window alone")
        return None
    if isinstance(window, bool) or not isinstance(window, int) or window < 8:
        raise InvalidInputError(f"window is {window!r}; expected a whole number of at least 8 tokens, or None")
    if stride is None:
        return window, window // 2
    if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= window:
        raise InvalidInputError(f"stride is {stride!r}; expected a whole number from 1 to the window, {window}")
    return window, stride


def _snapped(borders: Sequence[int], least: int, most: int) -> int:
    """Return the last border above `least` and up to `most`, or else `most`."""
    found = bisect_right(borders, most) - 1
    return borders[found] if found >= 0 and borders[found] > least else most


def _between_words(text: str, tokens: Sequence[Span], place: int) -> bool:
    start = tokens[place][0]
    if start == 0:
        return True
    before, after = text[start - 1], text[start]
    # Chinese and Japanese words follow one another without a space: a border there too.
    return not (before.isalnum() and after.isalnum()) or unicodedata.east_asian_width(after) in "WF"


def _start(text: str, tokens: Sequence[Span], place: int) -> int:
    if place == 0:
        return 0
    start = tokens[place][0]
    # A combining mark belongs to the letter before it.
    while start < len(text) and unicodedata.combining(text[start]):
        start += 1
    return start
