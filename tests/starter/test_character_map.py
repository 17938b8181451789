"""Replacements of characters, read by the library that they are written for."""

from __future__ import annotations

import base64
import sys
import unicodedata

import pytest
from tokenizers.normalizers import Precompiled

from rerank_integrations.starter.character_map import precompiled_map

COMPATIBILITY = {
    character: composed
    for point in range(1, sys.maxunicode)
    if not 0xD800 <= point < 0xE000
    and (composed := unicodedata.normalize("NFKC", character := chr(point))) != character
    and not unicodedata.combining(composed[0])
}


def normalizer(replacements: dict[str, str]) -> Precompiled:
    return Precompiled(base64.b64decode(precompiled_map(replacements)))


def test_each_character_becomes_its_replacement() -> None:
    made = normalizer(COMPATIBILITY)
    assert len(COMPATIBILITY) > 4_000
    wrong = [key for key, text in COMPATIBILITY.items() if made.normalize_str(key) != text]
    assert wrong == []


@pytest.mark.parametrize("text", ["", "plain", "naïve 中文 жук", "ｆｕｌｌ　ｗｉｄｔｈ ①½", "a\tb\nc"], ids=range(5))
def test_other_characters_stay(text: str) -> None:
    replacements = {**COMPATIBILITY, "\t": " ", "\n": ""}
    expected = "".join(replacements.get(character, character) for character in text)
    assert normalizer(replacements).normalize_str(text) == expected


def test_no_replacements_change_nothing() -> None:
    assert normalizer({"a": "b"}).normalize_str("xay") == "xby"
    assert normalizer({}).normalize_str("xay") == "xay"
