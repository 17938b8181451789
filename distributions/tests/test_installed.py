"""The thin distributions as they are installed, all of them together, beside the package and another integration."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from render_distributions import Distribution, read_distributions, read_project, render, requirements

DISTRIBUTIONS = read_distributions()
# The framework's base class by which its users know the kind of a component.
BASES = {
    "llama_index.indices.managed": "BaseManagedIndex",
    "llama_index.postprocessor": "BaseNodePostprocessor",
    "llama_index.retrievers": "BaseRetriever",
    "llama_index.vector_stores": "BasePydanticVectorStore",
}
HEAVY = ("torch", "transformers", "sentence_transformers", "scipy", "sklearn", "numba", "faiss")
# Components are constructed with names that only a hub has: whoever reads a model here fails.
CONSTRUCTED = """
stages = [
    adapter.ColBERTRerank(model="colbert-ir/colbertv2.0"),
    adapter.CrossEncoderRerank(model="BAAI/bge-reranker-base"),
]
adapter.CascadeRerank(stages=stages, top_n=1)
"""


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=DISTRIBUTIONS, ids=[distribution.name for distribution in DISTRIBUTIONS])
def distribution(request: pytest.FixtureRequest) -> Distribution:
    return request.param


def test_the_names_are_the_adapters_own_objects(distribution: Distribution) -> None:
    module, adapter = importlib.import_module(distribution.module), importlib.import_module(distribution.adapter)
    assert module.__all__ == list(distribution.names)
    assert [name for name in module.__all__ if getattr(module, name) is not getattr(adapter, name)] == []


def test_a_class_is_of_the_kind_that_its_path_says(distribution: Distribution) -> None:
    base = BASES.get(distribution.module.rpartition(".")[0])
    if base is None:
        assert distribution.module == "langchain_rerank_integrations"
        return
    module = importlib.import_module(distribution.module)
    for name in distribution.classes:
        assert base in {parent.__name__ for parent in inspect.getmro(getattr(module, name))}


def test_the_metadata_are_those_of_the_package(distribution: Distribution) -> None:
    installed, project = metadata.metadata(distribution.name), read_project()
    assert installed["Version"] == project["version"] == metadata.version("rerank-integrations")
    assert installed["License-Expression"] == project["license"]
    assert installed["Requires-Python"] == project["requires-python"]
    assert installed["Summary"] == distribution.summary
    required = {_normal(line) for line in metadata.requires(distribution.name) or ()}
    assert required == {_normal(line) for line in requirements(distribution)}


def _normal(requirement: str) -> tuple[str, frozenset[str]]:
    """Split a requirement into its name and its conditions, whose order means nothing."""
    name, conditions = re.fullmatch(r"([\w.-]+(?:\[[\w,-]+\])?)(.*)", requirement.replace(" ", "")).groups()
    return name, frozenset(conditions.split(","))


def test_the_module_is_typed_and_owns_no_shared_folder(distribution: Distribution) -> None:
    files = {str(file) for file in metadata.files(distribution.name) or () if ".dist-info" not in file.parts[0]}
    ours = {file for file in files if "__pycache__" not in file}
    assert ours == {f"{distribution.folder}/__init__.py", f"{distribution.folder}/py.typed"}


def test_namespaces_are_shared_with_another_integration() -> None:
    stores = importlib.import_module("llama_index.vector_stores")
    assert stores.__spec__.origin is None
    faiss = importlib.import_module("llama_index.vector_stores.faiss")
    assert faiss.FaissVectorStore.__module__ == "llama_index.vector_stores.faiss.base"
    assert importlib.import_module("llama_index.core").__version__ == metadata.version("llama-index-core")


@pytest.mark.parametrize(
    ("extra", "reranking", "other"),
    [
        ("langchain", "langchain_rerank_integrations", "llama_index"),
        ("llama-index", "llama_index.postprocessor.rerank_integrations", "langchain_core"),
    ],
)
def test_importing_and_constructing_load_nothing_heavy(extra: str, reranking: str, other: str, tmp_path: Path) -> None:
    imports = "\n".join(
        f"import {distribution.module}" for distribution in DISTRIBUTIONS if distribution.extra == extra
    )
    check = f"import sys; print(*[name for name in {(*HEAVY, other)!r} if name in sys.modules])"
    assert run(f"{imports}\nimport {reranking} as adapter\n{CONSTRUCTED}\n{check}", tmp_path).split() == []


def test_the_code_of_each_readme_finds_the_archive(tmp_path: Path) -> None:
    # The README that pip shows. One process for all, since most of the time goes into importing.
    readmes = [str(metadata.metadata(distribution.name).get_payload()) for distribution in DISTRIBUTIONS]
    blocks = [re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE) for readme in readmes]
    assert [len(found) for found in blocks] == [1] * len(DISTRIBUTIONS)
    code = "\n".join(f"exec({found[0]!r}, {{'__name__': '__main__'}})" for found in blocks)
    assert run(code, tmp_path).splitlines() == ["zipfile reads one member of an archive."] * len(DISTRIBUTIONS)


def test_what_is_installed_is_what_the_template_renders(distribution: Distribution) -> None:
    path = f"{distribution.folder}/__init__.py"
    (file,) = (file for file in metadata.files(distribution.name) or () if str(file) == path)
    assert file.read_text() == render(distribution)[path]
