"""How the tests of the command line call it: in this process, through its entry point."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import RECORDS, Cli, Done

from rerank_integrations.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Call the command line; `stdin` is not given here but by `monkeypatch` in the test that needs it."""
    monkeypatch.setenv("COLUMNS", "200")
    root, handlers, shown = logging.getLogger(), logging.getLogger().handlers[:], warnings.formatwarning
    factory = logging.getLogRecordFactory()

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Done(int(left.value.code or 0), written.out, written.err)

    yield call
    logging.captureWarnings(False)
    logging.setLogRecordFactory(factory)
    logging.getLogger("rerank_integrations").setLevel(logging.NOTSET)
    root.handlers[:], warnings.formatwarning = handlers, shown


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), "utf-8")
    return path


@pytest.fixture
def cached_model(colbert_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model in the hub's cache: an index of it opens without a word about the model."""
    cache = tmp_path_factory.mktemp("hub")
    repository, commit = cache / "models--acme--colbert", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(colbert_dir, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return "acme/colbert"


@pytest.fixture
def made(cli: Cli, tmp_path: Path, corpus: Path, cached_model: str) -> Path:
    """An index of `corpus`, made by the command line."""
    path = tmp_path / "made"
    done = cli("index", path, corpus, "--model", cached_model)
    assert done.code == 0, done.err
    return path
