"""Display of a text with the words that a query matched."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from rich.text import Text

from rerank_integrations.core.explanations import TokenMatch
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.explanations.words import widen_to_words, word_boundaries

# A cosine; below it the best token of a text is seldom related.
_MIN_COSINE = 0.6
_ENGLISH_FUNCTION_WORDS = (
    "a an and are as at be by can do for from how i if in into is it its not of on or the this that to was what "
    "when where which will with without you"
)
_MAX_WORD_LENGTH = 20
# Function words match each other in every text and say nothing about it.
_FUNCTION_WORDS = frozenset(_ENGLISH_FUNCTION_WORDS.split())


def matched_spans(text: str, matches: Iterable[TokenMatch], minimum: float = _MIN_COSINE) -> list[tuple[int, int]]:
    """Return the character spans of the words that were matched with a cosine of at least `minimum`.

    The span of a word piece is widened to its word. The spans are sorted, and neither overlap nor touch. Matches of or
    with function words (the, of, is...) are omitted.
    """
    pieces = [
        (match.start, match.end)
        for match in matches
        if match.score >= minimum
        and match.end > match.start
        and not {match.query_token.lower(), match.text_token.lower()} & _FUNCTION_WORDS
    ]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(widen_to_words(text, pieces)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def highlight(text: str, matches: Iterable[TokenMatch], *, styled: bool, width: int | None = None) -> Text:
    """Return `text` with its matched words in bold colour, or between ``«`` and ``»`` where `styled` is false.

    Control characters are replaced, because a passage must not control the terminal. With a `width`, the result is the
    part of about that many characters (at most a word more) in which most characters are matched.
    """
    spans = matched_spans(text, matches)
    text = printable(text)
    first, last = (0, len(text)) if width is None else _window(text, spans, width)
    marked = Text("…" if first > 0 else "")
    position = first
    for start, end in spans:
        if start < first or end > last:
            continue
        marked.append(text[position:start])
        word = text[start:end]
        marked.append(word if styled else f"«{word}»", style="bold yellow" if styled else "")
        position = end
    marked.append(text[position:last])
    marked.append("…" if last < len(text) else "")
    return marked


def _window(text: str, spans: Sequence[tuple[int, int]], width: int) -> tuple[int, int]:
    if len(text) <= width:
        return 0, len(text)
    firsts = [0, *(max(0, min(start - width // 4, len(text) - width)) for start, _ in spans)]
    matched = [sum(end - start for start, end in spans if first <= start and end <= first + width) for first in firsts]
    first = firsts[matched.index(max(matched))]
    boundaries = word_boundaries(text)
    return _start_of_word(boundaries, first), _start_of_word(boundaries, first + width)


def _start_of_word(boundaries: Sequence[int], position: int) -> int:
    """Return the start of the word around `position`, or `position` within a long run of characters such as a hash."""
    start = boundaries[bisect_right(boundaries, position) - 1]
    return start if position - start <= _MAX_WORD_LENGTH else position
