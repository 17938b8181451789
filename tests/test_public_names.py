"""The public names: complete, documented, in the reference, and enough to need no private module."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rerank_integrations
from rerank_integrations import errors

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rerank_integrations"
# What a user reads, copies or runs. The pages about the inside of the package may name its modules.
USER_FOLDERS = ("docs", "examples", "benchmarks", "training")
CORE_IMPORT = re.compile(r"^\s*(?:from|import)\s+(rerank_integrations\.core[\w.]*)", re.MULTILINE)
# Builds the package's own starter models, of parts that no user needs.
CORE_IMPORTS_ALLOWED = {
    f"training/{name}.py": {
        "rerank_integrations.core.models.checkpoints.options",
        "rerank_integrations.core.models.loaded_cross_encoder",
    }
    for name in ("multilingual", "starter")
}
# Types of a public signature that stay private: a user never writes them down.
PRIVATE_TYPES = {
    "Catalog",  # the constructor of ColBERTIndex is not called by users, who have create and open
    "WriterLock",
    "PairCut",  # what CrossEncoderModel reports to CrossEncoderScorer
    "PairScore",
    "Windows",  # what RerankOptions hands to the scorers
}


def _public(module: object) -> dict[str, object]:
    return {name: getattr(module, name) for name in module.__all__}  # type: ignore[attr-defined]


def _members(value: object) -> Iterator[tuple[str, object]]:
    """Yield the names and functions of a class that a user calls, and of a function itself."""
    if not inspect.isclass(value):
        yield "", value
        return
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__init__"):
            yield f".{name}", function


def test_all_is_sorted_and_names_every_class_and_function() -> None:
    imported = {
        name
        for name, value in vars(rerank_integrations).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported == set(rerank_integrations.__all__)
    assert sorted(rerank_integrations.__all__) == rerank_integrations.__all__


def _error_classes() -> dict[str, type]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }


def test_every_error_is_public() -> None:
    assert set(_error_classes()) <= set(rerank_integrations.__all__)


@pytest.mark.parametrize("name", rerank_integrations.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    value = getattr(rerank_integrations, name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    assert (value.__doc__ or "").strip()
    undocumented = [
        member
        for member, function in _members(value)
        if member != ".__init__" and not (inspect.getdoc(function) or "").strip()
    ]
    assert undocumented == []


def test_the_types_of_public_signatures_are_public() -> None:
    ours = {
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    named = {
        (word, f"{name}{member}")
        for name, value in _public(rerank_integrations).items()
        for member, function in _members(value)
        for annotation in getattr(function, "__annotations__", {}).values()
        for word in re.findall(r"\b[A-Z]\w+", str(annotation))
    }
    private = {(word, where) for word, where in named if word in ours - set(rerank_integrations.__all__)}
    assert {(word, where) for word, where in private if word not in PRIVATE_TYPES} == set()


@pytest.mark.parametrize(
    "module",
    ["", ".evaluation", ".files", ".server", ".training", ".langchain", ".llama_index", ".testing"],
)
def test_every_public_name_has_an_entry_in_the_reference(module: str) -> None:
    # Read, not imported: this also runs where a framework is missing.
    init = SOURCE.joinpath(*module.split("."), "__init__.py")
    listed = next(
        ast.literal_eval(node.value)
        for node in ast.parse(init.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    pages = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference" / "api").glob("*.md"))
    entries = re.findall(rf"^::: rerank_integrations{re.escape(module)}\.(\w+)$", pages, re.MULTILINE)
    assert sorted(entries) == sorted(listed)


def test_nothing_outside_imports_the_core() -> None:
    files = [ROOT / "README.md"]
    files += [path for folder in USER_FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md"}]
    imported = {path.relative_to(ROOT).as_posix(): set(CORE_IMPORT.findall(path.read_text("utf-8"))) for path in files}
    assert {name: modules for name, modules in imported.items() if modules} == CORE_IMPORTS_ALLOWED


def test_the_tree_at_the_top_of_errors_is_that_of_the_classes() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) *(?:\((\w+)\))?$", errors.__doc__ or "", re.MULTILINE))
    classes = {name: value for name, value in _error_classes().items() if value is not errors.RerankError}
    assert drawn == {name: "".join(base.__name__ for base in value.__bases__[1:]) for name, value in classes.items()}
    assert all(
        value.__bases__[0] is (UserWarning if name.endswith("Warning") else errors.RerankError)
        for name, value in classes.items()
    )
