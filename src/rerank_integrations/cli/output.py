"""Output of all commands: tables and messages for people, one JSON document for programs.

Names, texts, paths and errors may come from anyone. They are never read as markup. A character that controls a terminal
becomes its picture, and a character that the output's encoding lacks becomes a question mark.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.types import Hit


class _SafeConsole(Console):
    """Console that reads no markup and no emoji codes, and writes no character that controls the terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text):
            # A character and its replacement may differ in width, so replace before lines are broken.
            renderable = renderable.copy()
            renderable.plain = printable(renderable.plain, self.encoding)
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, self.encoding), segment.style)


class _SafeRecord(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802
        return printable(super().getMessage())


class _SafeFormatter(logging.Formatter):
    # A traceback is not part of a record's message, so the whole output is made printable.
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), _encoding(sys.stderr))


def _encoding(stream: TextIO) -> str:
    return stream.encoding or "utf-8"


def replace_unencodable_characters() -> None:
    """Let the standard streams write a question mark for a character that they lack, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def log_to_stderr() -> None:
    """Write log records and warnings to the standard error stream."""
    # A library may write records by handlers of its own.
    logging.setLogRecordFactory(_SafeRecord)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeFormatter("%(levelname)s: %(message)s"))
    # The stream must be this call's standard error, even if an earlier call in the process set up another: hence force.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: str(message)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write the traceback of an uncaught error; the arguments are those of `sys.excepthook`."""
    show_on_stderr("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


def show(content: RenderableType = "") -> None:
    """Write a message or a table to the standard output; long lines of a message stay whole, for copying paths."""
    _SafeConsole().print(content, soft_wrap=isinstance(content, str))


def show_on_stderr(message: str) -> None:
    """Write a message to the standard error stream, which is never for results."""
    _SafeConsole(stderr=True).print(message)


def spinner(task: str) -> AbstractContextManager[object]:
    """Show on a terminal that `task` is in progress, as long as the context lasts."""
    return _SafeConsole(stderr=True).status(Text(task))


def has_colours() -> bool:
    """Return whether the standard output shows colours."""
    return _SafeConsole().color_system is not None


def write_json(document: Mapping[str, object]) -> None:
    """Write one JSON document to the standard output in ASCII, which every encoding has."""
    # JSON in ASCII escapes every control character but this.
    sys.stdout.write(json.dumps(document, indent=2).replace("\x7f", "\\u007f") + "\n")


def write_table(rows: Mapping[str, object], title: str) -> None:
    """Write a table of names and values, one row per name."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, _formatted(value))
    show(table)


def _formatted(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def write_hits(hits: Iterable[Hit], texts: Mapping[str, Text] | None = None, title: str | None = None) -> None:
    """Write hits as a table; `texts` maps an id to a styled text that replaces the plain one."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", style="cyan", overflow="fold", max_width=36)
    table.add_column("text", overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.id, (texts or {}).get(hit.id, hit.text))
    show(table if table.row_count else "No passage found.")
