"""How the tests of the command line call it: in this process, through its entry point."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations.cli import main


@dataclass(frozen=True)
class Done:
    """What a call left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Done]


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


RECORDS = [
    {"_id": "a", "title": "Net profit", "text": "The net profit grew in 2024.", "year": 2024},
    {"_id": "b", "title": "", "text": "The river rose after the rain.", "metadata": {"year": 2023}},
    {"_id": "c", "text": "A zip file is read without extracting it.", "year": 2022},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), "utf-8")
    return path


@pytest.fixture
def made(cli: Cli, tmp_path: Path, corpus: Path, colbert_dir: Path) -> Path:
    """An index of `corpus`, made by the command line."""
    path = tmp_path / "made"
    done = cli("index", path, corpus, "--model", colbert_dir)
    assert done.code == 0, done.err
    return path
