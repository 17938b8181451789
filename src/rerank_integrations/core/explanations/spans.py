"""Where the words of a text begin and end, by its characters alone: the same for every tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Scripts that put no spaces between words: a piece of the tokenizer is the smallest unit there.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3031, 0x312F),  # kana, bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # kana of half the width
    (0x20000, 0x3FFFF),
)
_JOINERS = "\u200c\u200d"  # Persian and Indian words, families of emoji
_APOSTROPHES = "'’"
_POINTS = ".,"


def word_span(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span widened to the words that it starts and ends within.

    A word is a run of letters and digits with their accents, an apostrophe between letters, a point between digits.
    Where words are not set apart (Chinese, Japanese, Thai), only accents are added.
    """
    while start > 0 and _joined(text, start):
        start -= 1
    while end < len(text) and _joined(text, end):
        end += 1
    return start, end


def word_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return, for each span, that of its word; overlapping ones become one, and (0, 0) stays, being no place."""
    widened = {span: word_span(text, *span) for span in spans if span[1] > span[0]}
    joined: list[tuple[int, int]] = []
    for start, end in sorted(set(widened.values())):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    whole = {place: word for word in joined for place in range(*word)}
    return [whole[widened[span][0]] if span in widened else (0, 0) for span in spans]


def _joined(text: str, place: int) -> bool:
    """Whether the characters before and after `place` belong to one word."""
    before, after = text[place - 1], text[place]
    if _extends(after):
        return not before.isspace()
    if before in _JOINERS:
        return True
    if _of_word(before) and _of_word(after):
        return True
    return _linked(text, place) or _linked(text, place - 1)


def _linked(text: str, place: int) -> bool:
    """Whether an apostrophe stands between letters at `place`, or a point between digits."""
    if not 0 < place < len(text) - 1:
        return False
    mark, before, after = text[place], text[place - 1], text[place + 1]
    return (mark in _APOSTROPHES and _of_word(before) and _of_word(after)) or (
        mark in _POINTS and before.isdigit() and after.isdigit()
    )


def _extends(character: str) -> bool:
    return (
        character in _JOINERS
        or unicodedata.category(character)[0] == "M"
        or 0x1F3FB <= ord(character) <= 0x1F3FF  # colours of skin
    )


def _of_word(character: str) -> bool:
    code = ord(character)
    if not (character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")) or 0xFE00 <= code <= 0xFE0F:
        return False
    return not any(first <= code <= last for first, last in _UNSPACED)
