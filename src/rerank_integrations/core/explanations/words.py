"""Token matches grouped into words: which words of a text each word of a query matched."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import regex

Span: TypeAlias = "tuple[int, int]"

_MAX_CHARACTERS_AFTER_SPAN = 1000

# A token that stands nowhere in the text (a marker) has the span (0, 0); its own characters tell it from the others.
_Word: TypeAlias = "tuple[int, int, str]"


@dataclass(frozen=True)
class TokenMatch:
    """The best match of one query token in a text.

    Parameters
    ----------
    query_token, text_token
        The tokens as the tokenizer writes them.
    score
        Cosine of the two token vectors; a passage's MaxSim score is the sum over the query's tokens.
    start, end
        Character span of the text token in the text; 0 and 0 for a marker that the text does not hold.
    query_start, query_end
        Character span of the query token in the query.
    """

    query_token: str
    text_token: str
    score: float
    start: int
    end: int
    query_start: int = 0
    query_end: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


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
        Mean of these cosines.
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
        Mean of these cosines, at most 1.
    matched
        The matched words of the text, the highest `score` first.
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
        fields = {key: value for key, value in asdict(self).items() if key != "tokens"}
        return {**fields, "matched": list(fields["matched"])}


@dataclass(frozen=True)
class TextWord:
    """A word of the text with every token match within it.

    Parameters
    ----------
    start, end
        Character span in the text.
    strength
        The largest cosine.
    query_words
        Positions, in the result of `word_matches`, of the query words that matched it.
    tokens
        The token matches within it.
    """

    start: int
    end: int
    strength: float
    query_words: tuple[int, ...]
    tokens: tuple[TokenMatch, ...]


def word_matches(query: str, text: str, matches: Sequence[TokenMatch]) -> tuple[WordMatch, ...]:
    """Return the words of the query in order, each with the words that it matched."""
    words_of_query, words_of_text = _query_words(query, matches), _text_words(text, matches)
    result = []
    for query_word, positions in _positions_by_word(words_of_query, range(len(matches))).items():
        words = [words_of_text[position] for position in positions]
        matched = [
            MatchedWord(_characters(text, word), *word[:2], *_sum_and_mean([matches[position] for position in within]))
            for word, within in _positions_by_word(words, positions).items()
        ]
        matched.sort(key=lambda word: -word.score)
        tokens = tuple(matches[position] for position in positions)
        characters = _characters(query, query_word)
        result.append(WordMatch(characters, *query_word[:2], *_sum_and_mean(tokens), tuple(matched), tokens))
    return tuple(result)


def text_words(query: str, text: str, matches: Sequence[TokenMatch]) -> list[TextWord]:
    """Return the matched words of the text in their order, without markers."""
    words_of_query = _query_words(query, matches)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words_of_query))}
    positions_by_word = _positions_by_word(_text_words(text, matches), range(len(matches)))
    result = []
    for (start, end, _), positions in sorted(positions_by_word.items()):
        if end > start:
            tokens = tuple(matches[position] for position in positions)
            query_words = tuple(dict.fromkeys(numbers[words_of_query[position]] for position in positions))
            result.append(TextWord(start, end, max(match.score for match in tokens), query_words, tokens))
    return result


def _query_words(query: str, matches: Sequence[TokenMatch]) -> list[_Word]:
    """Return the word of the query that each match belongs to."""
    spans = _word_spans(query, [(match.query_start, match.query_end) for match in matches])
    return [(*span, "" if span[1] > span[0] else match.query_token) for span, match in zip(spans, matches, strict=True)]


def _text_words(text: str, matches: Sequence[TokenMatch]) -> list[_Word]:
    """Return the word of the text that each match belongs to."""
    spans = _word_spans(text, [(match.start, match.end) for match in matches])
    return [(*span, "" if span[1] > span[0] else match.text_token) for span, match in zip(spans, matches, strict=True)]


def _positions_by_word(words: Sequence[_Word], positions: Sequence[int]) -> dict[_Word, list[int]]:
    """Return the positions of each word, the words in the order of their first position."""
    grouped: dict[_Word, list[int]] = {}
    for word, position in zip(words, positions, strict=True):
        grouped.setdefault(word, []).append(position)
    return grouped


def _characters(text: str, word: _Word) -> str:
    start, end, marker = word
    return text[start:end] if end > start else marker


def _sum_and_mean(matches: Sequence[TokenMatch]) -> tuple[float, float]:
    total = sum(match.score for match in matches)
    return total, total / len(matches)


def _word_spans(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return the span of each span's word. Overlapping words become one; the empty span of a marker is (0, 0)."""
    widened = widen_to_words(text, spans)
    joined: list[Span] = []
    for start, end in sorted({span for span in widened if span[1] > span[0]}):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    starts = [start for start, _ in joined]
    return [joined[bisect_right(starts, start) - 1] if end > start else (0, 0) for start, end in widened]


# --- where words begin and end ---


def widen_to_words(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return each span widened to the words that it starts and ends within; an empty span stays as it is."""
    # A model reads the beginning of a long text, so nothing is searched far behind the last span (130 ms in 180,000
    # Chinese characters). A word that goes on for more characters than these ends there.
    boundaries = word_boundaries(text[: max((end for _, end in spans), default=0) + _MAX_CHARACTERS_AFTER_SPAN])
    return [
        (boundaries[bisect_right(boundaries, start) - 1], boundaries[bisect_left(boundaries, end)])
        if end > start
        else (start, end)
        for start, end in spans
    ]


def word_boundaries(text: str) -> list[int]:
    """Return where words begin and end by Unicode's rules (UAX #29), from 0 to the length of `text`.

    Accents, joiners, the parts of an emoji, an apostrophe between letters and a point between digits stay within their
    word. Every character of Chinese, Thai or Hiragana is a word, because these scripts put no spaces between words; a
    run of Katakana is one word. We depart from the rules where passages hold names and formulas: a point, a colon or
    an underscore between letters separates words (`zipfile.ZipFile`, `snake_case`), and a superscript or subscript
    number belongs to its letters (CO₂, m²).
    """
    boundary, replacements = _patterns()
    # Each replacement is as long as what it replaces, so that positions stay.
    for pattern, replacement in replacements:
        text = pattern.sub(replacement, text)
    return [match.start() for match in boundary.finditer(text)] or [0]


@cache
def _patterns() -> tuple[regex.Pattern[str], tuple[tuple[regex.Pattern[str], str], ...]]:
    # The import takes 30 ms, too long for the import of this package.
    import regex

    return regex.compile(r"(?w)\b", regex.VERSION1), (
        # The two letters of a flag become a character with an accent: to find where flags begin, the library counts
        # all letters of a run at each of them (4.6 s for 20,000 flags in a row).
        (regex.compile(r"\p{Regional_Indicator}{2}"), "☃\u0301"),
        (regex.compile(r"\p{No}"), "0"),
        (regex.compile(r"[\p{Word_Break=ExtendNumLet}\p{Regional_Indicator}:]|(?<!\d)\.|\.(?!\d)"), "!"),
    )
