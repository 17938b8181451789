"""The table of the thin distributions: complete, and in the documentation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from render_distributions import read_distributions, render

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = read_distributions()


@pytest.mark.parametrize("adapter", ["rerank_integrations.langchain", "rerank_integrations.llama_index"])
def test_each_public_name_of_an_adapter_is_in_a_distribution(adapter: str) -> None:
    """A new public name goes into a row of distributions/distributions.toml."""
    # Read, not imported: this also runs where a framework is missing.
    init = ROOT / "src" / adapter.replace(".", "/") / "__init__.py"
    listed = next(
        ast.literal_eval(node.value)
        for node in ast.parse(init.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    names = [name for distribution in DISTRIBUTIONS if distribution.adapter == adapter for name in distribution.names]
    assert sorted(names) == sorted(listed)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=[distribution.name for distribution in DISTRIBUTIONS])
def test_the_import_path_is_that_of_the_name(distribution) -> None:
    # As LlamaHub and LangChain derive it: llama-index-vector-stores-x is llama_index.vector_stores.x.
    assert distribution.module.replace(".", "_") == distribution.name.replace("-", "_")
    assert {path for path in render(distribution) if path.endswith(".py")} == {f"{distribution.folder}/__init__.py"}


def test_the_installation_guide_names_each_distribution_and_its_import_path() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text("utf-8")
    unnamed = [d.name for d in DISTRIBUTIONS if f"`{d.name}`" not in page or f"`{d.module}`" not in page]
    assert unnamed == []
