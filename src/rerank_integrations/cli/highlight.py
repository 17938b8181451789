"""The words of a text that a query matched, made visible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from rerank_integrations.core.explanations import TokenMatch
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.explanations.words import word_span

MATCHED = 0.6  # a cosine; below it the best token of a text is seldom related
_ENGLISH = (
    "a an and are as at be by can do for from how i if in into is it its not of on or the this that to was what "
    "when where which will with without you"
)
_LONGEST_WORD = 20
# They match each other in every text and say nothing about it.
_FUNCTION_WORDS = frozenset(_ENGLISH.split())


def matched_spans(text: str, matches: Iterable[TokenMatch], minimum: float = MATCHED) -> list[tuple[int, int]]:
    """Return the character spans of the words that were matched with a cosine of at least `minimum`.

    The span of a word piece is widened to its word; spans neither overlap nor touch, and come in order. Matches of
    or with function words (the, of, is...) are left out.
    """
    spans = sorted(
        word_span(text, match.start, match.end)
        for match in matches
        if match.score >= minimum
        and match.end > match.start
        and not {match.query_token.lower(), match.text_token.lower()} & _FUNCTION_WORDS
    )
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def highlight(text: str, matches: Iterable[TokenMatch], *, styled: bool, width: int | None = None) -> Text:
    """Return `text` with its matched words in bold colour, or between ``«`` and ``»`` where there is no style.

    Control characters are replaced: a passage must not steer the terminal. With a `width`, only so many characters, and
    at most a word more: those where most is matched.
    """
    spans = matched_spans(text, matches)
    text = printable(text)
    first, last = (0, len(text)) if width is None else _window(text, spans, width)
    marked = Text("…" if first > 0 else "")
    place = first
    for start, end in spans:
        if start < first or end > last:
            continue
        marked.append(text[place:start])
        word = text[start:end]
        marked.append(word if styled else f"«{word}»", style="bold yellow" if styled else "")
        place = end
    marked.append(text[place:last])
    marked.append("…" if last < len(text) else "")
    return marked


def _window(text: str, spans: Sequence[tuple[int, int]], width: int) -> tuple[int, int]:
    if len(text) <= width:
        return 0, len(text)
    firsts = [0, *(max(0, min(start - width // 4, len(text) - width)) for start, _ in spans)]
    held = [sum(end - start for start, end in spans if first <= start and end <= first + width) for first in firsts]
    first = firsts[held.index(max(held))]
    return _border(text, first), _border(text, first + width)


def _border(text: str, place: int) -> int:
    """Return the start of the word that `place` is within, unless that is far: Chinese puts no spaces."""
    for start in range(place, max(place - _LONGEST_WORD, 0), -1):
        if start == len(text) or not (text[start - 1].isalnum() and text[start].isalnum()):
            return start
    return 0 if place <= _LONGEST_WORD else place
