"""The docstrings of the running Python's standard library, as passages.

Python modules are parsed, never imported, since some act when imported. The members of a few C modules that
are safe to import are read by `inspect`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rerank_integrations.core.types import Passage

MAX_WORDS = 40

# Not for users of the library: its own tests, tools with a window, tables, and what was dropped or only jokes.
_LEFT_OUT = frozenset(
    {
        "antigravity",
        "distutils",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "test",
        "this",
        "tkinter",
        "turtledemo",
    }
)
_INSPECTED = (
    "array",
    "binascii",
    "builtins",
    "cmath",
    "collections",
    "datetime",
    "decimal",
    "functools",
    "gc",
    "hashlib",
    "io",
    "itertools",
    "marshal",
    "math",
    "mmap",
    "os",
    "select",
    "socket",
    "sqlite3",
    "struct",
    "sys",
    "time",
    "unicodedata",
    "zlib",
)


def standard_library_passages() -> Iterator[Passage]:
    """Yield a passage for every public module, class, function and method that has a docstring.

    Yields
    ------
    Passage
        ``id`` is the qualified name (``zipfile.ZipFile.open``; members of ``builtins`` go without the module:
        ``str.split``), ``text`` the name, the parameters and the first `MAX_WORDS` words of the docstring,
        ``metadata`` the ``kind`` (module, class, function or method) and the top ``module``. Ids are unique.
    """
    seen: set[str] = set()
    for passage in _all_passages():
        if passage.id not in seen:
            seen.add(passage.id)
            yield passage


def _all_passages() -> Iterator[Passage]:
    for name, path in _module_files():
        yield from _from_source(name, path)
    for name in _INSPECTED:
        yield from _from_module(importlib.import_module(name))


def _module_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for top in sorted(sys.stdlib_module_names - _LEFT_OUT):
        single = root / f"{top}.py"
        for path in [single] if single.is_file() else sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") or part in ("test", "tests") for part in parts):
                yield ".".join(parts), path


def _from_source(module: str, path: Path) -> Iterator[Passage]:
    tree = ast.parse(path.read_bytes(), filename=str(path))
    yield from _passage(module, "", "module", ast.get_docstring(tree), module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _from_function(f"{module}.{node.name}", "function", node, module)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            name = f"{module}.{node.name}"
            yield from _passage(name, "", "class", ast.get_docstring(node), module)
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _from_function(f"{name}.{member.name}", "method", member, module)


def _from_function(
    name: str, kind: str, node: ast.FunctionDef | ast.AsyncFunctionDef, module: str
) -> Iterator[Passage]:
    if node.name.startswith("_"):
        return
    given = node.args
    names = [argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    parameters = ", ".join(each for each in names if each not in ("self", "cls"))
    yield from _passage(name, f"({parameters})", kind, ast.get_docstring(node), module)


def _from_module(module: ModuleType) -> Iterator[Passage]:
    prefix = "" if module.__name__ == "builtins" else f"{module.__name__}."
    yield from _passage(module.__name__, "", "module", inspect.getdoc(module), module.__name__)
    for member_name in getattr(module, "__all__", None) or sorted(vars(module)):
        member = getattr(module, member_name, None)
        if member_name.startswith("_") or inspect.ismodule(member):
            continue
        if inspect.isclass(member):
            yield from _from_class(prefix + member_name, member, module.__name__)
        elif inspect.isbuiltin(member):
            yield from _from_callable(prefix + member_name, "function", member, module.__name__)


def _from_class(name: str, found: type, module: str) -> Iterator[Passage]:
    yield from _passage(name, "", "class", found.__dict__.get("__doc__"), module)
    for member_name, member in sorted(vars(found).items()):
        if not member_name.startswith("_") and callable(member):
            yield from _from_callable(f"{name}.{member_name}", "method", member, module)


def _from_callable(name: str, kind: str, found: Any, module: str) -> Iterator[Passage]:
    try:
        names = list(inspect.signature(found).parameters)
    except (TypeError, ValueError, AttributeError):  # not every C function tells its parameters
        names = []
    parameters = ", ".join(each for each in names if each not in ("self", "cls"))
    yield from _passage(name, f"({parameters})", kind, inspect.getdoc(found), module)


def _passage(name: str, signature: str, kind: str, docstring: object, module: str) -> Iterator[Passage]:
    if isinstance(docstring, str) and (summary := _summary(docstring)):
        metadata = {"kind": kind, "module": module.partition(".")[0]}
        yield Passage(name, f"{name}{signature}: {summary}", metadata)


def _summary(docstring: str) -> str:
    """Return the first words of a docstring, whole paragraphs as far as they fit, without its examples."""
    kept: list[str] = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        words = paragraph.split()
        if not words or words[0] == ">>>":
            continue
        if kept and len(kept) + len(words) > MAX_WORDS:
            break
        kept += words
    return " ".join(kept if len(kept) <= MAX_WORDS else [*kept[:MAX_WORDS], "..."])
