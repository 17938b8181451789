"""The docstrings of the running Python's standard library, as passages.

Python modules are parsed and never imported, because importing some of them has effects. `inspect` reads the members of
a few C modules that are safe to import.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from rerank_integrations.core.types import Passage

MAX_WORDS = 40

# Modules that users of the library do not call: its own tests, tools with windows, tables, removed ones and jokes.
_EXCLUDED = frozenset(
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
_SAFE_C_MODULES = (
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
    """Yield one passage per public module, class, function or method that has a docstring.

    Yields
    ------
    Passage
        Its ``id`` is the qualified name (``zipfile.ZipFile.open``; without the module for members of ``builtins``:
        ``str.split``), its ``text`` the name, the parameters and the first `MAX_WORDS` words of the docstring, and its
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
    for name in _SAFE_C_MODULES:
        yield from _from_module(importlib.import_module(name))


def _module_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for top in sorted(sys.stdlib_module_names - _EXCLUDED):
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
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    signature = _signature(argument.arg for argument in arguments)
    yield from _passage(name, signature, kind, ast.get_docstring(node), module)


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


def _from_class(name: str, cls: type, module: str) -> Iterator[Passage]:
    yield from _passage(name, "", "class", cls.__dict__.get("__doc__"), module)
    for member_name, member in sorted(vars(cls).items()):
        if not member_name.startswith("_") and callable(member):
            yield from _from_callable(f"{name}.{member_name}", "method", member, module)


def _from_callable(name: str, kind: str, function: Callable[..., object], module: str) -> Iterator[Passage]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError, AttributeError):  # some C functions have no signature
        names = []
    yield from _passage(name, _signature(names), kind, inspect.getdoc(function), module)


def _signature(parameters: Iterable[str]) -> str:
    return f"({', '.join(name for name in parameters if name not in ('self', 'cls'))})"


def _passage(name: str, signature: str, kind: str, docstring: object, module: str) -> Iterator[Passage]:
    if isinstance(docstring, str) and (summary := _summary(docstring)):
        metadata = {"kind": kind, "module": module.partition(".")[0]}
        yield Passage(name, f"{name}{signature}: {summary}", metadata)


def _summary(docstring: str) -> str:
    """Return the first words of a docstring without its examples, in whole paragraphs if they fit."""
    summary: list[str] = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        words = paragraph.split()
        if not words or words[0] == ">>>":
            continue
        if summary and len(summary) + len(words) > MAX_WORDS:
            break
        summary += words
    return " ".join(summary if len(summary) <= MAX_WORDS else [*summary[:MAX_WORDS], "..."])
