"""Corpus of the demo: docstrings of the running Python's standard library."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from rerank_integrations import Passage
from rerank_integrations.demo.docstrings import MAX_WORDS, standard_library_passages


@pytest.fixture(scope="module")
def docstrings() -> dict[str, Passage]:
    passages = list(standard_library_passages())
    by_id = {passage.id: passage for passage in passages}
    assert len(by_id) == len(passages)
    return by_id


@pytest.mark.slow
def test_the_corpus_is_large_and_of_every_kind(docstrings: dict[str, Passage]) -> None:
    assert len(docstrings) >= 1500
    kinds = Counter(passage.metadata["kind"] for passage in docstrings.values())
    assert set(kinds) == {"module", "class", "function", "method"}
    assert min(kinds.values()) > 100


@pytest.mark.parametrize(
    ("name", "kind", "module", "words"),
    [
        ("zipfile.ZipFile.open", "method", "zipfile", "file-like object"),
        ("textwrap", "module", "textwrap", "Text wrapping and filling"),
        ("shutil.copytree", "function", "shutil", "directory tree"),
        ("str.split", "method", "builtins", "substrings"),
        ("math.gcd", "function", "math", "Greatest Common Divisor"),
        ("itertools.chain", "class", "itertools", "iterable"),
        ("os.listdir", "function", "os", "names of the files"),
    ],
)
def test_well_known_names_are_there(
    docstrings: dict[str, Passage], name: str, kind: str, module: str, words: str
) -> None:
    passage = docstrings[name]
    assert passage.text.startswith(name)
    assert words in passage.text
    assert passage.metadata == {"kind": kind, "module": module}


def test_passages_are_short_and_public(docstrings: dict[str, Passage]) -> None:
    for passage in docstrings.values():
        assert len(passage.text.partition(": ")[2].removesuffix(" ...").split()) <= MAX_WORDS
        assert not any(part.startswith("_") for part in passage.id.split("."))
        assert ">>>" not in passage.text[:20]


def test_source_passages_hold_the_docstring_of_the_source(docstrings: dict[str, Passage]) -> None:
    tree = ast.parse(Path(textwrap.__file__).read_text("utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "dedent"]
    first = (ast.get_docstring(function) or "").split("\n\n")[0]
    assert " ".join(first.split()) in docstrings["textwrap.dedent"].text
    assert "dedent(text)" in docstrings["textwrap.dedent"].text
