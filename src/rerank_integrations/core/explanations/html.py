"""HTML view of an explanation: one page with a heat map of the text, which fetches nothing and runs no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from rerank_integrations.core.explanations.views import STRENGTHS, Explained, notes, strength
from rerank_integrations.core.explanations.words import MatchedWord, TextWord, TokenMatch, WordMatch, text_words

if TYPE_CHECKING:
    from jinja2 import Template

# HTML may not hold these characters, not even escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_MAX_TITLE = 80


@dataclass(frozen=True)
class _Mark:
    """A marked word, and the characters between it and the mark before it."""

    before: str
    word: str
    classes: str
    title: str


@dataclass(frozen=True)
class _Rest:
    """The characters behind the last mark; `unread` is ``None`` where the model read everything."""

    read: str
    unread: str | None


@dataclass(frozen=True)
class _TokenRow:
    """A token match with the characters that its tokens stand for."""

    match: TokenMatch
    query_piece: str
    text_piece: str


def page(explanation: Explained) -> str:
    """Return the page as text for UTF-8."""
    words = explanation.words()
    query, query_rest = _query(explanation, words)
    text, text_rest = _text(explanation, words)
    return _cleaned(
        _template().render(
            title=_title(explanation.query),
            style=_file("page.css"),
            notes=notes(explanation),
            query=query,
            query_rest=query_rest,
            text=text,
            text_rest=text_rest,
            steps=[f"{step / STRENGTHS:.1f}" for step in range(1, STRENGTHS + 1)],
            words=words,
            tokens=[
                _TokenRow(match, _query_piece(explanation, match), explanation.text[match.start : match.end])
                for match in explanation.matches
            ],
        )
    )


@cache
def _template() -> Template:
    # The import takes 80 ms, too long for the import of this package; compiling the template takes 20 ms.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(label=_label, bar_width=_bar_width)
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _query(explanation: Explained, words: Sequence[WordMatch]) -> tuple[list[_Mark], _Rest]:
    marks, position = [], 0
    for word in words:
        title = ", ".join(f"{_label(matched)} {matched.mean:.2f}" for matched in word.matched)
        before = explanation.query[position : word.query_start]
        marks.append(_Mark(before, word.query_word, f"s{strength(word.mean)}", title))
        position = max(position, word.query_end)
    return marks, _rest(explanation.query, position, explanation.query_read_to)


def _text(explanation: Explained, words: Sequence[WordMatch]) -> tuple[list[_Mark], _Rest]:
    marks, position = [], 0
    for word in text_words(explanation.query, explanation.text, explanation.matches):
        title = ", ".join(_cosines(explanation, words[number], word) for number in word.query_words)
        classes = " ".join([f"s{strength(word.strength)}", *(f"q{number}" for number in word.query_words)])
        before = explanation.text[position : word.start]
        marks.append(_Mark(before, explanation.text[word.start : word.end], classes, title))
        position = word.end
    return marks, _rest(explanation.text, position, explanation.read_to)


def _rest(text: str, position: int, read_to: int | None) -> _Rest:
    if read_to is None:
        return _Rest(text[position:], None)
    # A word may reach past the last token that was read of it.
    end = max(position, read_to)
    return _Rest(text[position:end], text[end:])


def _cosines(explanation: Explained, query_word: WordMatch, word: TextWord) -> str:
    """Return a query word with its mean cosine within `word`, and with each piece's if it has several."""
    cosines = [(_query_piece(explanation, match), match.score) for match in query_word.tokens if match in word.tokens]
    mean = sum(cosine for _, cosine in cosines) / len(cosines)
    pieces = ", ".join(f"{piece} {cosine:.2f}" for piece, cosine in cosines)
    return f"{query_word.query_word} {mean:.2f}" + (f" ({pieces})" if len(query_word.tokens) > 1 else "")


def _query_piece(explanation: Explained, match: TokenMatch) -> str:
    """Return the query's characters that a token stands for, which say more than ``[UNK]`` does."""
    return explanation.query[match.query_start : match.query_end] or match.query_token


def _label(word: MatchedWord) -> str:
    return word.word if word.end > word.start else f"({word.word})"


def _bar_width(mean: float) -> float:
    return round(100 * min(max(mean, 0), 1)) / 10


def _title(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= _MAX_TITLE else f"{line[:_MAX_TITLE]}…"


def _cleaned(html: str) -> str:
    """Return the page with line feeds alone as line ends, and with U+FFFD for characters that HTML may not hold."""
    return _FORBIDDEN.sub("\ufffd", html.replace("\r\n", "\n").replace("\r", "\n"))
