"""Fits that were killed: they go on from what is whole, as the same fit or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_cross_encoder, write_multi_vector
from sentence_transformers import MultiVectorEncoder
from transformers import TrainerState

from rerank_integrations import CheckpointError, ColBERTModel, InvalidInputError
from rerank_integrations.training import Example, Fitting, train_colbert, train_cross_encoder

pytest.importorskip("accelerate", reason="training needs the extra train")
pytest.importorskip("datasets", reason="training needs the extra train")

WORDS = ("zip", "csv", "json", "tar", "html", "audio", "mail", "queue", "color", "time", "math", "hash")
EXAMPLES = [
    Example(f"read {word}", f"The module writes {word}.", (f"Nothing of {word}.", f"No {word} in {number}."))
    for number, word in enumerate(WORDS)
]
# Three steps an epoch: the last of these is in the middle of one.
FITTING = Fitting(steps=5, batch_size=4, learning_rate=1e-3, head_learning_rate=1e-2, max_length=32, save_steps=2)


class Killed(BaseException):
    """Nothing catches it, so nothing is put in order."""


@contextlib.contextmanager
def killed(owner: Any, name: str, when: Callable[..., bool]) -> Iterator[None]:
    """End what is within at the call of `owner.name` for whose arguments `when` holds."""
    original = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise Killed
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        with pytest.raises(Killed):
            yield


def train(base: Path, out: Path, fitting: Fitting = FITTING, examples: list[Example] = EXAMPLES, **more: Any) -> None:
    train_colbert(base, {"words": examples}, out, fitting, **more)


def vectors(path: Path) -> Any:
    return ColBERTModel(path, device="cpu", dtype="float32").encode_documents(["The module writes zip."])[0]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def whole(colbert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fits") / "whole"
    train(colbert_dir, out)
    return out


@pytest.fixture(scope="module")
def stopped(colbert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was killed in its second checkpoint, which lacks the file that is written last."""
    out = tmp_path_factory.mktemp("fits") / "stopped"
    with killed(TrainerState, "save_to_json", lambda state, path: "checkpoint-4" in path):
        train(colbert_dir, out)
    assert {path.name for path in out.rglob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    return out


@pytest.mark.slow
@pytest.mark.parametrize("written", [None, "", '{"global_step": 4, "ep'])
def test_it_goes_on_from_the_newest_checkpoint_that_is_whole(
    colbert_dir: Path, stopped: Path, whole: Path, tmp_path: Path, written: str | None
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    if written is not None:
        (out / "unfinished" / "checkpoint-4" / "trainer_state.json").write_text(written)
    train(colbert_dir, out)
    np.testing.assert_allclose(vectors(out), vectors(whole), atol=1e-4)
    assert not (out / "unfinished").exists()


CHANGES = [
    ("learning_rate 0.001 and not 0.01", {"fitting": dataclasses.replace(FITTING, learning_rate=0.01)}),
    ("max_length 32 and not 16", {"fitting": dataclasses.replace(FITTING, max_length=16)}),
    ("steps 5 and not 9", {"fitting": dataclasses.replace(FITTING, steps=9)}),
    ("pairs '", {"examples": [*EXAMPLES[1:], EXAMPLES[0]]}),
    ("pairs '", {"examples": [*EXAMPLES[1:], dataclasses.replace(EXAMPLES[0], negatives=("a", "b"))]}),
]


@pytest.mark.parametrize(("told", "change"), CHANGES)
@pytest.mark.parametrize("state", ["stopped", "whole"])
def test_another_fit_is_refused_and_changes_nothing(
    colbert_dir: Path, state: str, told: str, change: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    out: Path = request.getfixturevalue(state)
    before = files(out)
    with pytest.raises(InvalidInputError, match="expected the same, or a new folder") as raised:
        train(colbert_dir, out, **change)
    assert f"{out} holds a fit with {told}" in str(raised.value)
    assert files(out) == before


def test_another_base_is_refused_and_the_same_elsewhere_is_not(
    colbert_dir: Path, stopped: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    with pytest.raises(InvalidInputError, match="holds a fit with base"):
        train(write_multi_vector(tmp_path / "other", seed=9), out)
    shutil.copytree(colbert_dir, tmp_path / "same")
    train(tmp_path / "same", out)
    assert not (out / "unfinished").exists()


def test_settings_that_are_not_known(colbert_dir: Path, stopped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    settings = out / "unfinished" / "settings.json"
    for damage in (lambda: settings.write_text("{"), lambda: settings.write_text("[]"), settings.unlink):
        damage()
        with pytest.raises(InvalidInputError, match="does not hold a fit's settings"):
            train(colbert_dir, out)


def test_where_nothing_was_kept_settings_may_change(colbert_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with killed(TrainerState, "save_to_json", lambda state, path: True):
        train(colbert_dir, out)
    train(colbert_dir, out, dataclasses.replace(FITTING, steps=1))
    assert ColBERTModel(out).fingerprint


def half_saved(model: Any, path: str) -> bool:
    if "checkpoint-" in path:
        return False
    Path(path).mkdir()
    Path(path, "modules.json").write_text("[")
    return True


def moving(name: str) -> Callable[..., bool]:
    return lambda path, _: path.parent.name == "trained" and path.name == name


MOMENTS = {
    "saving": (MultiVectorEncoder, "save_pretrained", half_saved),
    "moving": (Path, "replace", moving("modules.json")),
    "moving the last": (Path, "replace", moving("training.json")),
    "dropping": (shutil, "rmtree", lambda path, *_: Path(path).name == "unfinished"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.slow
def test_killed_after_the_last_step(colbert_dir: Path, whole: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    with killed(*MOMENTS[moment]):
        train(colbert_dir, out)
    with pytest.raises(InvalidInputError, match=r"learning_rate 0\.001 and not 0\.01"):
        train(colbert_dir, out, dataclasses.replace(FITTING, learning_rate=0.01))
    train(colbert_dir, out)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    np.testing.assert_allclose(vectors(out), vectors(whole), atol=1e-4)


def test_a_fit_that_is_done_is_not_done_again(colbert_dir: Path, whole: Path) -> None:
    before = files(whole)
    train(colbert_dir, whole)
    assert files(whole) == before


def test_a_check_writes_nothing(colbert_dir: Path, stopped: Path, tmp_path: Path) -> None:
    train(colbert_dir, tmp_path / "out", check_only=True)
    assert not (tmp_path / "out").exists()
    before = files(stopped)
    train(colbert_dir, stopped, check_only=True)
    assert files(stopped) == before


@pytest.mark.parametrize("check_only", [False, True])
def test_what_a_model_cannot_do_is_told_before_anything_is_made(
    cross_encoder_dir: Path, colbert_dir: Path, tmp_path: Path, check_only: bool
) -> None:
    out, several = tmp_path / "out", write_cross_encoder(tmp_path / "several", num_labels=3)
    with pytest.raises(CheckpointError, match="has 3 labels; expected 1"):
        train_cross_encoder(several, {"words": EXAMPLES}, out, FITTING, check_only=check_only)
    long = dataclasses.replace(FITTING, max_length=513)
    for trainer, base in ((train_colbert, colbert_dir), (train_cross_encoder, cross_encoder_dir)):
        with pytest.raises(InvalidInputError, match="max_length is 513; expected at most 512"):
            trainer(base, {"words": EXAMPLES}, out, long, check_only=check_only)
    assert not out.exists()
