"""Read the code blocks of the documentation, and run a page's Python as a reader would: block after block."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.rerankers import write_qwen3_reranker

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CROSS_ENCODER = "cross-encoder/ms-marco-MiniLM-L6-v2"
LANGUAGE_MODEL = "Qwen/Qwen3-Reranker-0.6B"

# A block that cannot run has a line of its own before it: <!-- not run: reason -->
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<not_run>.+?) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A code block of a page; `not_run` is the reason why it cannot run, if the page gives one."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None

    @property
    def where(self) -> str:
        """Return the page and the line before the first line of code."""
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def pages() -> list[Path]:
    """Return every page of the site."""
    return sorted(DOCS.rglob("*.md"))


def read_blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("code")].count("\n"), found["language"], found["code"], found["not_run"])
        for found in _BLOCK.finditer(text)
    ]


def run_blocks(blocks: Iterable[Block], folder: Path) -> dict[str, Any]:
    """Run Python blocks in `folder`, all in one namespace, and return the names that they define."""
    names: dict[str, Any] = {"__name__": "guide", "folder": folder}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in blocks:
            # Empty lines before it, so that a traceback has the page's own line.
            exec(compile("\n" * block.line + block.code, block.where, "exec"), names)
    finally:
        os.chdir(before)
    return names


def run_guide(name: str, folder: Path, cross_encoder: Path) -> dict[str, Any]:
    """Return the names that the Python blocks of a page define, and the ``folder``; arguments as of `run_guides`."""
    return run_guides([name], folder, cross_encoder)


def run_guides(names: Sequence[str], folder: Path, cross_encoder: Path) -> dict[str, Any]:
    """Return the names that the Python blocks of several pages define, one page after another, and the ``folder``.

    Runs in `folder`, where tiny cross-encoders lie under the names of those that the pages take from the hub.
    """
    shutil.copytree(cross_encoder, folder / CROSS_ENCODER)
    blocks = [block for name in names for block in read_blocks(DOCS / name)]
    if any(LANGUAGE_MODEL in block.code for block in blocks):
        write_qwen3_reranker(folder / LANGUAGE_MODEL)
    return run_blocks([block for block in blocks if block.language == "python"], folder)
