"""What the commands write: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.core.types import Hit

# Control characters that `json.dumps` leaves as they are, and some terminals obey.
_CONTROLS = re.compile("[\x7f-\x9f]")


def console() -> Console:
    """Return the console of the standard output."""
    return Console(highlight=False)


def error_console() -> Console:
    """Return the console of the standard error stream: messages and progress, never results."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def write_json(document: Any) -> None:
    """Write one JSON document to the standard output."""
    # Where the stream cannot write every character, escapes say the same.
    escaped = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    written = json.dumps(document, ensure_ascii=escaped, indent=2)
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", written) + "\n")


def write_table(rows: Mapping[str, object], title: str) -> None:
    """Write names and values, a row each."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(_shown(value)))
    console().print(table)


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def write_hits(hits: Iterable[Hit], texts: Mapping[str, Text] | None = None, title: str | None = None) -> None:
    """Write hits as a table; `texts` gives styled texts by id, in place of the plain ones."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", style="cyan", overflow="fold", max_width=36)
    table.add_column("text", overflow="fold")
    for hit in hits:
        text = (texts or {}).get(hit.id) or Text(printable(hit.text))
        table.add_row(str(hit.rank), f"{hit.score:.3f}", Text(printable(hit.id)), text)
    if table.row_count:
        console().print(table)
    else:
        console().print("No passage found.")
