"""One set of passages, indexed once, and the frameworks that this environment has."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from corpus import ENGLISH

if TYPE_CHECKING:
    from rerank_integrations import ColBERTIndex, ColBERTModel, Passage

HARNESSES = {"langchain": "harness_langchain", "llama-index": "harness_llama_index"}


def frameworks(config: pytest.Config) -> list[str]:
    named = [name.strip() for name in config.getoption("--frameworks").split(",") if name.strip()]
    unknown = set(named) - set(HARNESSES)
    if unknown:
        raise pytest.UsageError(f"--frameworks names {sorted(unknown)}; expected some of {sorted(HARNESSES)}")
    return named


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name, present = collection_path.name, frameworks(config)
    absent = [framework.replace("-", "_") for framework in HARNESSES if framework not in present]
    needs_absent = any(name.startswith(f"test_{framework}") for framework in absent)
    # What is common to the frameworks needs one of them.
    common = name.startswith("test_") and name != "test_imports.py"
    return True if needs_absent or (common and not present) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness" in metafunc.fixturenames:
        metafunc.parametrize("harness", frameworks(metafunc.config), indirect=True)


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(HARNESSES[request.param]).Harness()


@pytest.fixture(scope="session")
def passages() -> list[Passage]:
    from rerank_integrations import Passage

    return [
        Passage(f"p{number:02}", text, {"year": 2000 + number % 20, "tags": ["even" if number % 2 == 0 else "odd"]})
        for number, text in enumerate(ENGLISH[:48])
    ]


@pytest.fixture(scope="session")
def index(
    tmp_path_factory: pytest.TempPathFactory, colbert: ColBERTModel, passages: list[Passage]
) -> Iterator[ColBERTIndex]:
    from rerank_integrations import ColBERTIndex

    with ColBERTIndex.create(tmp_path_factory.mktemp("library") / "index", colbert) as created:
        created.upsert(passages)
        yield created
