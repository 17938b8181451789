"""The words of a text that a query matched, made visible."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from rerank_integrations.core.models import TokenMatch

MATCHED = 0.6  # a cosine; below it the best token of a text is seldom related
_ENGLISH = (
    "a an and are as at be by can do for from how i if in into is it its not of on or the this that to was what "
    "when where which will with without you"
)
# They match each other in every text and say nothing about it.
_FUNCTION_WORDS = frozenset(_ENGLISH.split())


def matched_spans(text: str, matches: Iterable[TokenMatch], minimum: float = MATCHED) -> list[tuple[int, int]]:
    """Return the character spans of the words that were matched with a cosine of at least `minimum`.

    The span of a word piece is widened to its word; spans neither overlap nor touch, and come in order. Matches of
    or with function words (the, of, is...) are left out.
    """
    spans = sorted(
        _whole_word(text, match.start, match.end)
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


def _whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    return start, end


def highlight(text: str, matches: Iterable[TokenMatch], *, styled: bool) -> Text:
    """Return `text` with its matched words in bold colour, or between ``«`` and ``»`` where there is no style."""
    marked = Text()
    place = 0
    for start, end in matched_spans(text, matches):
        marked.append(text[place:start])
        word = text[start:end]
        marked.append(word if styled else f"«{word}»", style="bold yellow" if styled else "")
        place = end
    marked.append(text[place:])
    return marked
