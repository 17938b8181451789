"""``rerank-integrations train``: its errors, their order, and its output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import write_cross_encoder
from command_line import Cli
from small_collection import write_collection

from rerank_integrations import ColBERTModel

pytest.importorskip("accelerate", reason="training needs the extra train")
pytest.importorskip("datasets", reason="training needs the extra train")

WORDS = ("zip", "csv", "json", "tar", "html", "audio")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    lines = [
        {"query": f"read {word}", "positive": f"It reads {word}.", "negatives": [f"No {word}.", f"Not {word}."]}
        for word in WORDS
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.parametrize("epochs", ["nan", "inf", "-inf", "0", "-1", "1e308"])
def test_impossible_numbers_of_epochs_are_errors(
    cli: Cli, pairs: Path, colbert_dir: Path, tmp_path: Path, epochs: str
) -> None:
    done = cli("train", "colbert", pairs, "--out", tmp_path / "out", "--base", colbert_dir, f"--epochs={epochs}")
    assert done.code == 1
    assert f"error: epochs is {float(epochs)!r}; expected a finite number above 0" in done.err
    assert not (tmp_path / "out").exists()


def test_a_fraction_of_an_epoch_is_at_least_one_step(cli: Cli, pairs: Path, colbert_dir: Path, tmp_path: Path) -> None:
    # A path may look like markup.
    out = tmp_path / "x[bold]" / "y[" / "z]"
    done = cli("train", "colbert", pairs, "--out", out, "--base", colbert_dir, "--epochs", "0.01")
    assert done.code == 0, done.err
    assert "x[bold]/y[/z]: trained on 6 pairs, 1 steps" in "".join(done.out.splitlines())
    assert ColBERTModel(out).fingerprint


def occupied(tmp_path: Path) -> tuple[list[object], str]:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    return [], "exists already"


def several_labels(tmp_path: Path) -> tuple[list[object], str]:
    return ["--base", write_cross_encoder(tmp_path / "several", num_labels=3)], "has 3 labels; expected 1"


def too_long(tmp_path: Path) -> tuple[list[object], str]:
    return ["--max-length", 513], "max_length is 513; expected at most 512"


@pytest.mark.parametrize("case", [occupied, several_labels, too_long])
def test_arguments_are_checked_before_anything_is_measured(
    cli: Cli, pairs: Path, cross_encoder_dir: Path, tmp_path: Path, case: Callable[[Path], tuple[list[object], str]]
) -> None:
    options, message = case(tmp_path)
    data = write_collection(tmp_path / "data")
    arguments = ["--out", tmp_path / "out", "--base", cross_encoder_dir, "--evaluate", data, *options]
    done = cli("train", "cross-encoder", pairs, *arguments)
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / "out-evaluation").exists()


def test_a_missing_extra_is_the_first_error(
    cli: Cli, colbert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    arguments = ["--out", tmp_path / "out", "--base", colbert_dir, "--evaluate", write_collection(tmp_path / "data")]
    done = cli("train", "colbert", tmp_path / "none.jsonl", *arguments)
    assert done.code == 1
    assert "pip install 'rerank-integrations[train]'" in done.err
    assert not (tmp_path / "out-evaluation").exists()
