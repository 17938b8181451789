"""Short fits of tiny checkpoints: they learn, they go on where they were, and what they write loads."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rerank_integrations import ColBERTModel, CrossEncoderModel, InvalidInputError
from rerank_integrations.cli.app import main
from rerank_integrations.training import Example, Fitting, mine_negatives, train_colbert, train_cross_encoder

pytest.importorskip("accelerate", reason="training needs the extra train")
pytest.importorskip("datasets", reason="training needs the extra train")
pytest.importorskip("bm25s", reason="negatives are found by BM25")

WORDS = ("zip", "csv", "json", "tar", "html", "audio", "mail", "queue", "color", "time", "math", "hash")
# A query and its answer share no word of their own: before training one answer is as good as another.
ANSWERS = WORDS[5:] + WORDS[:5]
EXAMPLES = [Example(f"read {word}", f"The module writes {other}.") for word, other in zip(WORDS, ANSWERS, strict=True)]
FITTING = Fitting(steps=60, batch_size=4, learning_rate=1e-3, head_learning_rate=1e-2, max_length=32, save_steps=10)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return mine_negatives(EXAMPLES, FITTING.negatives)


def right(score: Callable[[str, list[str]], list[float]]) -> float:
    """Return the share of queries whose positive scores best."""
    texts = [example.positive for example in EXAMPLES]
    best = [max(zip(score(example.query, texts), texts, strict=True))[1] for example in EXAMPLES]
    return sum(text == example.positive for text, example in zip(best, EXAMPLES, strict=True)) / len(EXAMPLES)


@pytest.mark.slow
def test_a_colbert_learns_and_loads(colbert_dir: Path, examples: list[Example], tmp_path: Path) -> None:
    before = right(ColBERTModel(colbert_dir, device="cpu", dtype="float32").score)
    train_colbert(colbert_dir, {"words": examples}, tmp_path / "out", FITTING)
    trained = ColBERTModel(tmp_path / "out", device="cpu", dtype="float32")
    assert right(trained.score) > before
    assert trained.fingerprint != ColBERTModel(colbert_dir).fingerprint
    assert not (tmp_path / "out" / "unfinished").exists()


@pytest.mark.slow
def test_a_cross_encoder_learns_and_loads(cross_encoder_dir: Path, examples: list[Example], tmp_path: Path) -> None:
    before = right(CrossEncoderModel(cross_encoder_dir, device="cpu", dtype="float32").score)
    train_cross_encoder(cross_encoder_dir, {"words": examples}, tmp_path / "out", FITTING)
    assert right(CrossEncoderModel(tmp_path / "out", device="cpu", dtype="float32").score) > before


def test_frozen_layers_stay_as_they_are(colbert_dir: Path, examples: list[Example], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    fitting = dataclasses.replace(FITTING, steps=3, frozen_layers=1)
    train_colbert(colbert_dir, {"words": examples}, tmp_path / "out", fitting)
    before, after = (load_file(folder / "model.safetensors") for folder in (colbert_dir, tmp_path / "out"))
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    layers = {name.partition("layer.")[2].partition(".")[0] for name in changed}
    assert layers == {"1"}
    assert json.loads((tmp_path / "out" / "training.json").read_text())["frozen_layers"] == 1


@pytest.mark.parametrize("count", [2, 9])
def test_more_frozen_layers_than_there_are_is_refused(
    colbert_dir: Path, examples: list[Example], tmp_path: Path, count: int
) -> None:
    fitting = dataclasses.replace(FITTING, frozen_layers=count)
    with pytest.raises(InvalidInputError, match=f"frozen_layers is {count}; expected less than 2"):
        train_colbert(colbert_dir, {"words": examples}, tmp_path / "out", fitting)
    assert not (tmp_path / "out").exists()


def test_lengths_are_the_base_s_again(colbert_dir: Path, examples: list[Example], tmp_path: Path) -> None:
    train_colbert(colbert_dir, {"words": examples}, tmp_path / "out", Fitting(steps=1, batch_size=2, max_length=8))
    text = "The module reads and writes data of every kind that anybody has ever written to a file."
    before, after = (
        ColBERTModel(path, device="cpu", dtype="float32").encode_documents([text])[0]
        for path in (colbert_dir, tmp_path / "out")
    )
    assert before.shape == after.shape


@pytest.mark.parametrize("train", [train_colbert, train_cross_encoder])
def test_what_stands_there_is_never_overwritten(
    train: Callable[..., None], colbert_dir: Path, examples: list[Example], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InvalidInputError, match="exists already"):
        train(colbert_dir, {"words": examples}, tmp_path, FITTING)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_negatives(colbert_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected examples of 2 each"):
        train_colbert(colbert_dir, {"words": EXAMPLES}, tmp_path / "out", FITTING)


STOPPED = """
import pickle, sys
from rerank_integrations.training import train_colbert
base, examples, out, fitting = pickle.load(open(sys.argv[1], "rb"))
train_colbert(base, {"words": examples}, out, fitting)
"""


@pytest.mark.slow
def test_a_fit_that_was_killed_ends_like_one_that_was_not(
    colbert_dir: Path, examples: list[Example], tmp_path: Path
) -> None:
    fitting = dataclasses.replace(FITTING, steps=150)
    train_colbert(colbert_dir, {"words": examples}, tmp_path / "whole", fitting)
    killed, settings = tmp_path / "killed", tmp_path / "settings.pickle"
    settings.write_bytes(pickle.dumps((colbert_dir, examples, killed, fitting)))
    with subprocess.Popen([sys.executable, "-c", STOPPED, str(settings)]) as process:
        while not any((killed / "unfinished").glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.kill()
    train_colbert(colbert_dir, {"words": examples}, killed, fitting)
    whole, resumed = (
        ColBERTModel(tmp_path / name, device="cpu", dtype="float32").encode_documents([EXAMPLES[0].positive])[0]
        for name in ("whole", "killed")
    )
    np.testing.assert_allclose(resumed, whole, atol=1e-4)


@pytest.mark.slow
def test_the_command(
    tmp_path: Path, colbert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, data = tmp_path / "pairs.jsonl", tmp_path / "data[dev]"
    pairs.write_text("\n".join(json.dumps({"query": e.query, "positive": e.positive}) for e in EXAMPLES))
    (data / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", [e.positive for e in EXAMPLES]), ("queries", [e.query for e in EXAMPLES])):
        lines = [json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts)]
        (data / f"{name}.jsonl").write_text("\n".join(lines))
    (data / "qrels" / "test.tsv").write_text("".join(f"{number}\t{number}\t1\n" for number in range(len(EXAMPLES))))
    arguments = ["train", "colbert", str(pairs), "--out", str(tmp_path / "out"), "--base", str(colbert_dir)]
    arguments += ["--evaluate", str(data), "--batch-size", "4", "--learning-rate", "0.001"]
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--json"])
    assert done.value.code in (0, None)
    document = json.loads(capsys.readouterr().out)
    assert (document["pairs"], document["steps"]) == (len(EXAMPLES), 3)
    assert [row["name"] for row in document["rows"]] == ["before", "after"]
    assert ColBERTModel(tmp_path / "out").dim == ColBERTModel(colbert_dir).dim
    # As after a kill while the result was measured: what is done is not done again.
    kept = tmp_path / "out" / "training.json", tmp_path / "out-evaluation" / "before.json"
    written = [path.stat().st_mtime_ns for path in kept]
    (tmp_path / "out-evaluation" / "after.json").unlink()
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code in (0, None)
    assert "data[dev]: before and after" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in kept] == written


def test_bad_pairs_are_told_before_anything_is_made(
    tmp_path: Path, colbert_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("{}")
    with pytest.raises(SystemExit) as done:
        main(["train", "colbert", str(pairs), "--out", str(tmp_path / "out"), "--base", str(colbert_dir)])
    assert done.value.code == 1
    assert "line 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
