"""Safe display of texts from unknown sources."""

from __future__ import annotations

import unicodedata

_DIRECTION_CHARACTERS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REPLACEMENT = "\ufffd"


def printable(text: str, encoding: str = "utf-8") -> str:
    """Return `text` as a terminal may show it, character for character, so that spans still fit.

    A control character (an ANSI escape begins with one) becomes its picture. A character that changes the direction of
    writing becomes the replacement character, and one that `encoding` lacks a question mark. Line feeds stay.
    """
    return "".join(_shown(character, encoding) for character in text)


def _shown(character: str, encoding: str) -> str:
    if character == "\n" or " " <= character <= "~":
        return character
    if character == "\t":
        return " "
    shown = _picture(character)
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        return "?"
    return shown


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    category = unicodedata.category(character)
    if category in ("Zl", "Zp"):
        return " "
    return _REPLACEMENT if category in ("Cc", "Cs") or character in _DIRECTION_CHARACTERS else character
