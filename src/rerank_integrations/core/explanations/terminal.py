"""Terminal view of an explanation: a table of the words, and the text with its matched words marked."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.explanations.views import Explained, notes, strength
from rerank_integrations.core.explanations.words import MatchedWord, text_words
from rerank_integrations.errors import InvalidInputError

_MIN_WIDTH = 20
_BAR_WIDTH = 10
# The style of each strength, from 1.
_STYLES = ("dim underline", "underline", "yellow underline", "bold yellow underline", "bold black on yellow")


def as_text(explanation: Explained, width: int, *, colour: bool) -> str:
    """Return the view as a string; `Explanation.to_text` documents the arguments."""
    if isinstance(width, bool) or not isinstance(width, int) or width < _MIN_WIDTH:
        raise InvalidInputError(f"width is {width!r}; expected a whole number of at least {_MIN_WIDTH}")
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
    """Renderable that `Explanation.render` returns."""

    def __init__(self, explanation: Explained) -> None:
        self._explanation = explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def safe(text: str) -> str:
            return printable(text, console.encoding)

        explanation = self._explanation
        yield Text.assemble((safe(explanation.query), "bold"))
        if explanation.matches:
            yield self._table(safe, ascii_only=options.ascii_only)
        for note in notes(explanation):
            yield Text(safe(note), style="dim")
        yield Text()
        yield self._marked(safe, styled=console.color_system is not None, ascii_only=options.ascii_only)

    def _table(self, safe: Callable[[str], str], *, ascii_only: bool) -> Table:
        table = Table()
        table.add_column("query", overflow="fold")
        table.add_column("matched", overflow="fold")
        table.add_column("cosine", justify="right")
        table.add_column("", no_wrap=True, min_width=_BAR_WIDTH)
        table.add_column("adds", justify="right")
        for word in self._explanation.words():
            matched = Text(", ").join(_matched(match, safe) for match in word.matched)
            bar = ("#" if ascii_only else "█") * round(_BAR_WIDTH * min(max(word.mean, 0), 1))
            query_word = Text(_on_one_line(safe(word.query_word)))
            table.add_row(query_word, matched, f"{word.mean:.2f}", bar, f"{word.score:.2f}")
        return table

    def _marked(self, safe: Callable[[str], str], *, styled: bool, ascii_only: bool) -> Text:
        explanation = self._explanation
        opening, closing = ("<", ">") if ascii_only else ("«", "»")
        marked, position = Text(), 0
        for word in text_words(explanation.query, explanation.text, explanation.matches):
            marked.append(safe(explanation.text[position : word.start]))
            shown = safe(explanation.text[word.start : word.end])
            if styled:
                marked.append(shown, style=_STYLES[strength(word.strength) - 1])
            else:
                marked.append(f"{opening}{shown} {word.strength:.2f}{closing}")
            position = word.end
        end = len(explanation.text) if explanation.read_to is None else explanation.read_to
        return marked.append(safe(explanation.text[position:end]) + ("" if explanation.read_to is None else "..."))


def _matched(word: MatchedWord, safe: Callable[[str], str]) -> Text:
    if word.end == word.start:
        return Text(f"({safe(word.word)})", style="dim")
    return Text(_on_one_line(safe(word.word)))


def _on_one_line(text: str) -> str:
    return text.replace("\n", " ")
