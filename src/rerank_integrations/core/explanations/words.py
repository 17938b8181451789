"""Token matches put together to words: which words of a text a word of the query matched."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rerank_integrations.core.explanations.explanation import TokenMatch


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


# A marker has no place in the text: its token tells it from others.
_Key: TypeAlias = "tuple[int, int, str]"


@dataclass(frozen=True)
class MatchedWord:
    """A word of the text, as far as one word of the query matched it.

    Parameters
    ----------
    word
        The text's own characters; for a marker, which the text does not hold, the token.
    start, end
        Character span in the text; 0 and 0 for a marker.
    score
        Sum of the cosines of the query word's tokens that matched within it.
    mean
        Their mean.
    """

    word: str
    start: int
    end: int
    score: float
    mean: float


@dataclass(frozen=True)
class WordMatch:
    """A word of the query and the words of the text that its tokens matched.

    Parameters
    ----------
    query_word
        The query's own characters.
    query_start, query_end
        Character span in the query.
    score
        Sum of its tokens' cosines: what it adds to the MaxSim score.
    mean
        Their mean, at most 1.
    matched
        The highest `score` first.
    tokens
        The matches of its tokens.
    """

    query_word: str
    query_start: int
    query_end: int
    score: float
    mean: float
    matched: tuple[MatchedWord, ...]
    tokens: tuple[TokenMatch, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes, without the tokens."""
        kept = {key: value for key, value in asdict(self).items() if key != "tokens"}
        return {**kept, "matched": list(kept["matched"])}


@dataclass(frozen=True)
class TextWord:
    """A word of the text with every token match within it.

    Parameters
    ----------
    strength
        The largest cosine.
    asked
        Places of the query words that matched it, in `word_matches`.
    """

    start: int
    end: int
    strength: float
    asked: tuple[int, ...]
    tokens: tuple[TokenMatch, ...]


def word_matches(query: str, text: str, matches: Sequence[TokenMatch]) -> tuple[WordMatch, ...]:
    """Return the words of the query in order, each with what it matched."""
    asked, found = _asked(query, matches), _found(text, matches)
    words = []
    for (start, end, word), places in _places(asked).items():
        matched = [
            MatchedWord(*_word(text, key), *_score([matches[place] for place in within]))
            for key, within in _places([found[place] for place in places], places).items()
        ]
        matched.sort(key=lambda one: -one.score)
        tokens = tuple(matches[place] for place in places)
        shown = query[start:end] if end > start else word
        words.append(WordMatch(shown, start, end, *_score(tokens), tuple(matched), tokens))
    return tuple(words)


def text_words(query: str, text: str, matches: Sequence[TokenMatch]) -> list[TextWord]:
    """Return the words of the text that were matched, in order; markers are left out."""
    asked = _asked(query, matches)
    numbers = {key: number for number, key in enumerate(_places(asked))}
    words = []
    for (start, end, _), places in sorted(_places(_found(text, matches)).items()):
        if end > start:
            tokens = tuple(matches[place] for place in places)
            by = tuple(dict.fromkeys(numbers[asked[place]] for place in places))
            words.append(TextWord(start, end, max(match.score for match in tokens), by, tokens))
    return words


def _asked(query: str, matches: Sequence[TokenMatch]) -> list[_Key]:
    spans = word_spans(query, [(match.query_start, match.query_end) for match in matches])
    return [(*span, "" if span[1] > span[0] else match.query_token) for span, match in zip(spans, matches, strict=True)]


def _found(text: str, matches: Sequence[TokenMatch]) -> list[_Key]:
    spans = word_spans(text, [(match.start, match.end) for match in matches])
    return [(*span, "" if span[1] > span[0] else match.text_token) for span, match in zip(spans, matches, strict=True)]


def _places(keys: Sequence[_Key], places: Sequence[int] | None = None) -> dict[_Key, list[int]]:
    """Return where each key stands, the keys in the order of their first place."""
    grouped: dict[_Key, list[int]] = {}
    for key, place in zip(keys, range(len(keys)) if places is None else places, strict=True):
        grouped.setdefault(key, []).append(place)
    return grouped


def _word(text: str, key: _Key) -> tuple[str, int, int]:
    start, end, marker = key
    return text[start:end] if end > start else marker, start, end


def _score(matches: Sequence[TokenMatch]) -> tuple[float, float]:
    total = sum(match.score for match in matches)
    return total, total / len(matches)
