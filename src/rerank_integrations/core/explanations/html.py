"""An explanation as one HTML page, a heat map of the text: it fetches nothing and runs no script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from rerank_integrations.core.explanations.notes import STRENGTHS, notes, strength
from rerank_integrations.core.explanations.words import MatchedWord, TextWord, WordMatch, text_words

if TYPE_CHECKING:
    from rerank_integrations.core.explanations.explanation import Explanation, TokenMatch


# What HTML may not hold, not even escaped.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_FRAME = "outline: 2px solid var(--frame);"
_PAGE = """<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>Which words matched</h1>
{notes}
<h2>Query</h2>
<p class="query" dir="auto">{query}</p>
<h2>Text</h2>
<p class="note">A word is stronger in colour and its line thicker the larger its best cosine: {legend}.
Point at a word of the query to frame what it matched, at a word of the text to read which words of the query matched
it.</p>
<div class="text" dir="auto">{text}</div>
<h2>Words</h2>
{words}
<details>
<summary>Tokens</summary>
{tokens}
</details>
</main>
</body>
</html>
"""


def page(told: Explanation) -> str:
    """Return the page, for UTF-8."""
    words = told.words()
    return _PAGE.format(
        title=_text(_title(told.query)),
        style=_style(len(words)),
        notes="\n".join(f'<p class="note">{_text(note)}</p>' for note in notes(told)),
        query=_query(told, words),
        text=_heat(told, words),
        legend=" ".join(f'<mark class="s{step}">{_step(step)}</mark>' for step in range(1, STRENGTHS + 1)),
        words=_table("words", ("query", "matched", "cosine", "adds"), map(_word_row, words)),
        tokens=_table(
            "tokens", ("query", "token", "text", "token", "cosine"), (_token_row(told, match) for match in told.matches)
        ),
    )


def _style(words: int) -> str:
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    framed = (f"main:has(#q{place}:is(:hover, :focus)) .q{place} {{ {_FRAME} }}\n" for place in range(words))
    return style + "".join(framed)


def _query(told: Explanation, words: Sequence[WordMatch]) -> str:
    pieces, place = [], 0
    for number, word in enumerate(words):
        title = ", ".join(f"{_shown(one)} {one.mean:.2f}" for one in word.matched)
        pieces.append(_text(told.query[place : word.query_start]))
        pieces.append(
            f'<mark class="s{strength(word.mean)}" id="q{number}" tabindex="0" title="{_text(title)}">'
            f"{_text(word.query_word)}</mark>"
        )
        place = max(place, word.query_end)
    return "".join(pieces) + _rest(told.query, place, told.query_read_to)


def _heat(told: Explanation, words: Sequence[WordMatch]) -> str:
    pieces, place = [], 0
    for word in text_words(told.query, told.text, told.matches):
        pieces += [_text(told.text[place : word.start]), _mark(told, word, words)]
        place = word.end
    return "".join(pieces) + _rest(told.text, place, told.read_to)


def _mark(told: Explanation, word: TextWord, words: Sequence[WordMatch]) -> str:
    by = ", ".join(_asker(told, words[number], word) for number in word.asked)
    kinds = " ".join([f"s{strength(word.strength)}", *(f"q{number}" for number in word.asked)])
    return f'<mark class="{kinds}" title="{_text(by)}">{_text(told.text[word.start : word.end])}</mark>'


def _asker(told: Explanation, asked: WordMatch, word: TextWord) -> str:
    """Return a query word with the cosine of its match within `word`, and where it has pieces those that matched."""
    cosines = [(_piece(told, match), match.score) for match in asked.tokens if match in word.tokens]
    mean = sum(cosine for _, cosine in cosines) / len(cosines)
    pieces = ", ".join(f"{piece} {cosine:.2f}" for piece, cosine in cosines)
    return f"{asked.query_word} {mean:.2f}" + (f" ({pieces})" if len(asked.tokens) > 1 else "")


def _rest(text: str, place: int, read_to: int | None) -> str:
    if read_to is None:
        return _text(text[place:])
    # A word may reach past the last token that was read of it.
    end = max(place, read_to)
    return f'{_text(text[place:end])}<span class="unread">{_text(text[end:])}</span>'


def _word_row(word: WordMatch) -> tuple[str, ...]:
    matched = ", ".join(f"<bdi>{_text(_shown(one))}</bdi>" for one in word.matched)
    filled = round(100 * min(max(word.mean, 0), 1))
    bar = f'<span class="bar" style="width: {filled / 10}em"></span>'
    return f"<bdi>{_text(word.query_word)}</bdi>", matched, f"{word.mean:.3f} {bar}", f"{word.score:.3f}"


def _token_row(told: Explanation, match: TokenMatch) -> tuple[str, ...]:
    return (
        f"<bdi>{_text(_piece(told, match))}</bdi>",
        f"<code><bdi>{_text(match.query_token)}</bdi></code>",
        f"<bdi>{_text(told.text[match.start : match.end])}</bdi>",
        f"<code><bdi>{_text(match.text_token)}</bdi></code>",
        f"{match.score:.3f}",
    )


def _table(kind: str, headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _piece(told: Explanation, match: TokenMatch) -> str:
    """Return the query's characters that a token stands for, which tell more than ``[UNK]`` does."""
    return told.query[match.query_start : match.query_end] or match.query_token


def _shown(one: MatchedWord) -> str:
    return one.word if one.end > one.start else f"({one.word})"


def _step(step: int) -> str:
    return f"to {step / STRENGTHS:.1f}"


def _title(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= 80 else f"{line[:80]}…"


def _text(text: str) -> str:
    """Return `text` for an element or a quoted attribute."""
    return escape(_NO_TEXT.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")))
