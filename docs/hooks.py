"""Steps of building the site: the command line's help becomes a part of its page, and no page loads from elsewhere."""

from __future__ import annotations

import posixpath
from typing import Any

MARK = "<!-- commands -->"
# The theme's template loads this to search in a site that is opened from a folder. The copy in assets does the same.
SHIM = "https://unpkg.com/iframe-worker/shim"
SHIM_COPY = "assets/iframe-worker.js"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference of all commands where a page asks for it."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load the theme's one script from elsewhere out of the site's own folder."""
    return output.replace(SHIM, posixpath.relpath(SHIM_COPY, posixpath.dirname(page.url) or "."))


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same for the page of an address that leads nowhere, which is shown at any depth."""
    return output_content.replace(SHIM, f"/{SHIM_COPY}")


def commands() -> str:
    """Return every command with its arguments and options, as Markdown with a heading per command."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from rerank_integrations.cli.app import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="rerank-integrations")
    # The page has a title already; rich's escape of a bracket means nothing here.
    return text.partition("\n")[2].replace("\\[", "[")
