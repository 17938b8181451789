"""Write the tables of modules in docs/explanation/architecture.md, from the tree and the docstrings.

    PYTHONPATH=tests/support .venv/bin/python -m module_table

A test holds that the page names every module. After a module was added, moved or removed, run this.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from guides import DOCS, ROOT

PAGE = DOCS / "explanation" / "architecture.md"
SOURCE = ROOT / "src" / "rerank_integrations"
START, END = "<!-- modules: written by tests/support/module_table.py -->", "<!-- end of modules -->"
# The order in which a reader meets them; folders inside follow their parent.
FOLDERS = (
    "",
    "core",
    "langchain",
    "llama_index",
    "testing",
    "server",
    "mcp",
    "evaluation",
    "training",
    "files",
    "starter",
    "demo",
    "cli",
)


def modules(folder: Path) -> list[Path]:
    """Return the modules of a folder, without those that only export names."""
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def folders() -> Iterator[Path]:
    """Yield every folder with modules, in the order of the page."""
    for name in FOLDERS:
        folder = SOURCE / name
        inside = sorted(path for path in folder.rglob("*") if path.is_dir()) if name else []
        yield from (path for path in (folder, *inside) if modules(path))


def summary(path: Path) -> str:
    """Return the first line of a module's docstring as Markdown."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.sub(r"``(.+?)``", r"`\1`", docstring.split("\n\n")[0].replace("\n", " ")).replace("|", "\\|")


def tables() -> str:
    """Return a heading and a table per folder."""
    parts = []
    for folder in folders():
        name = folder.relative_to(SOURCE).as_posix()
        title = "The root" if name == "." else f"`{name}/`"
        about = "" if name == "." else f"{summary(folder / '__init__.py')}\n\n"
        rows = "".join(f"| `{path.name}` | {summary(path)} |\n" for path in modules(folder))
        parts.append(f"### {title}\n\n{about}| module | what it holds |\n|---|---|\n{rows}")
    return "\n".join(parts)


def main() -> None:
    """Replace what stands between the marks of the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n{tables()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
