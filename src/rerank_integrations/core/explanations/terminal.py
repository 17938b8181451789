"""An explanation in a terminal: a table of the words, and the text with the words marked that it matched."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from rerank_integrations.core.explanations.notes import notes, strength
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.explanations.words import MatchedWord, text_words
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.core.explanations.explanation import Explanation

_NARROWEST = 20
_BAR = 10
# By strength, from 1.
_STYLES = ("dim underline", "underline", "yellow underline", "bold yellow underline", "bold black on yellow")


def as_text(explanation: Explanation, width: int, *, colour: bool) -> str:
    """Return the view as a string; `Explanation.to_text` says what it takes."""
    if isinstance(width, bool) or not isinstance(width, int) or width < _NARROWEST:
        raise InvalidInputError(f"width is {width!r}; expected a whole number of at least {_NARROWEST}")
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=colour,
        force_jupyter=False,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
    )
    console.print(TerminalView(explanation))
    return stream.getvalue()


class TerminalView:
    """What `Explanation.render` gives to a console."""

    def __init__(self, explanation: Explanation) -> None:
        self._explanation = explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def safe(text: str) -> str:
            return printable(text, console.encoding)

        told = self._explanation
        yield Text.assemble((safe(told.query), "bold"))
        if len(told):
            yield self._table(safe, ascii_only=options.ascii_only)
        for note in notes(told):
            yield Text(safe(note), style="dim")
        yield Text()
        yield self._marked(safe, styled=console.color_system is not None, ascii_only=options.ascii_only)

    def _table(self, safe: Callable[[str], str], *, ascii_only: bool) -> Table:
        table = Table()
        table.add_column("query", overflow="fold")
        table.add_column("matched", overflow="fold")
        table.add_column("cosine", justify="right")
        table.add_column("", no_wrap=True, min_width=_BAR)
        table.add_column("adds", justify="right")
        for word in self._explanation.words():
            matched = Text(", ").join(_matched(one, safe) for one in word.matched)
            bar = ("#" if ascii_only else "█") * round(_BAR * min(max(word.mean, 0), 1))
            table.add_row(Text(_in_line(safe(word.query_word))), matched, f"{word.mean:.2f}", bar, f"{word.score:.2f}")
        return table

    def _marked(self, safe: Callable[[str], str], *, styled: bool, ascii_only: bool) -> Text:
        told = self._explanation
        opening, closing = ("<", ">") if ascii_only else ("«", "»")
        marked, place = Text(), 0
        for word in text_words(told.query, told.text, told.matches):
            marked.append(safe(told.text[place : word.start]))
            shown = safe(told.text[word.start : word.end])
            if styled:
                marked.append(shown, style=_STYLES[strength(word.strength) - 1])
            else:
                marked.append(f"{opening}{shown} {word.strength:.2f}{closing}")
            place = word.end
        end = len(told.text) if told.read_to is None else told.read_to
        return marked.append(safe(told.text[place:end]) + ("" if told.read_to is None else "..."))


def _matched(one: MatchedWord, safe: Callable[[str], str]) -> Text:
    if one.end == one.start:
        return Text(f"({safe(one.word)})", style="dim")
    return Text(_in_line(safe(one.word)))


def _in_line(text: str) -> str:
    return text.replace("\n", " ")
