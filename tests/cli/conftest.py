"""Fixtures that call the command line in this process, through its entry point."""

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
    """Function that calls the command line; a test that needs `stdin` replaces it by `monkeypatch`."""
    monkeypatch.setenv("COLUMNS", "200")
    root, handlers, formatter = logging.getLogger(), logging.getLogger().handlers[:], warnings.formatwarning
    factory = logging.getLogRecordFactory()

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Done(int(exit_info.value.code or 0), written.out, written.err)

    yield call
    logging.captureWarnings(False)
    logging.setLogRecordFactory(factory)
    logging.getLogger("rerank_integrations").setLevel(logging.NOTSET)
    root.handlers[:], warnings.formatwarning = handlers, formatter


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), "utf-8")
    return path


@pytest.fixture
def cached_model(colbert_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a model in the hub's cache: an index of it opens without naming the model."""
    cache = tmp_path_factory.mktemp("hub")
    repository, commit = cache / "models--acme--colbert", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(colbert_dir, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return "acme/colbert"


@pytest.fixture
def index_path(cli: Cli, tmp_path: Path, corpus: Path, cached_model: str) -> Path:
    """Index of `corpus` that the command line created."""
    path = tmp_path / "made"
    done = cli("index", path, corpus, "--model", cached_model)
    assert done.code == 0, done.err
    return path
