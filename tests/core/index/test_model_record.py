"""An index is data: opening and searching one runs no code, and reads no folder and contacts no host that it names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoints import write_stanford_colbert
from close_to import close_to
from damaged_index import change_catalog
from toy import ToyEncoder

from rerank_integrations import CheckpointError, ColBERTIndex, ColBERTModel, IndexFormatError

PLAIN = {
    "name_or_path": "acme/colbert",
    "revision": "v1.0",
    "dtype": "float32",
    "backend": "onnx",
    "batch_size": 8,
    "query_length": 24,
    "document_length": 200,
    "local_files_only": True,
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with ColBERTIndex.create(tmp_path / "index", ToyEncoder()) as index:
        index.upsert(["a text", "another one"])
    return tmp_path / "index"


def record(index: Path, options: Mapping[str, Any]) -> Path:
    change_catalog(index, "UPDATE meta SET value = ? WHERE key = 'model'", json.dumps(options))
    return index


def require_refusal(path: Path, *said: str) -> None:
    """Assert that the index opens and shows its content; calls that need its model name the recorded one."""
    with ColBERTIndex.open(path, read_only=True) as index:
        assert len(index) == 2
        index.verify()
        assert index.stats().model == index.model.name
        for use in (
            lambda: index.search("a question"),
            lambda: index.rerank("a question", ["some id"]),
            lambda: index.model.dim,
            lambda: index.model.options(),
            lambda: index.model.encode_documents(["a text"]),
        ):
            with pytest.raises(CheckpointError, match="not loaded because an index names it") as refusal:
                use()
            for part in (*said, "ColBERTIndex.open(path, ColBERTModel("):
                assert part in str(refusal.value)


def test_plain_options_are_taken(made: Path) -> None:
    with ColBERTIndex.open(record(made, PLAIN)) as index:
        assert isinstance(index.model, ColBERTModel)
        assert index.model.options() == PLAIN


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model_kwargs", {"weights_only": False}),
        ("model_kwargs", {"attn_implementation": "acme/kernels"}),
        ("model_kwargs", {}),
        ("trust_remote_code", True),
        ("token", "hf_secret"),
        ("cache_folder", "/somewhere"),
        ("device", "cuda"),
    ],
)
def test_no_other_option_is_taken(made: Path, option: str, value: object) -> None:
    require_refusal(record(made, {"name_or_path": "acme/colbert", option: value}), option, "acme/colbert")


@pytest.mark.parametrize(
    "name", ["/a/model", "./model", "../model", "model/", "a/b/c", "\\\\host\\share", "~/model", "."]
)
def test_a_path_is_not_taken(made: Path, name: str) -> None:
    require_refusal(record(made, {"name_or_path": name}), repr(name), "a path on this machine")


def test_a_name_that_is_a_folder_here_is_a_path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme" / "colbert").mkdir(parents=True)
    record(made, {"name_or_path": "acme/colbert"})
    monkeypatch.chdir(tmp_path)
    require_refusal(made, "a path on this machine")
    monkeypatch.chdir(made)
    with ColBERTIndex.open(made) as index:
        assert index.model.options() == {"name_or_path": "acme/colbert"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("revision", ["main"]),
        ("batch_size", "8"),
        ("batch_size", True),
        ("batch_size", 2**40),
        ("document_length", 1e3),
        ("query_length", 1),
        ("local_files_only", 1),
        ("dtype", "int8"),
        ("dtype", None),
        ("backend", "acme"),
        ("activation", "raw"),
    ],
)
def test_values_are_checked(made: Path, option: str, value: object) -> None:
    record(made, PLAIN | {option: value, "backend": "torch"} if option == "dtype" else PLAIN | {option: value})
    with pytest.raises(IndexFormatError, match=rf"{option}.*pass the model"):
        ColBERTIndex.open(made)


def test_a_model_in_a_folder_is_used_once_the_user_names_it(stanford_dir: Path, tmp_path: Path) -> None:
    with ColBERTIndex.create(tmp_path / "index", ColBERTModel(stanford_dir)) as index:
        index.upsert(["a text", "another one"])
        expected = index.search("a text", 2)
    require_refusal(tmp_path / "index", str(stanford_dir))
    with ColBERTIndex.open(tmp_path / "index", ColBERTModel(stanford_dir)) as index:
        assert close_to(index.search("a text", 2), expected)


class Payload(dict[str, Any]):
    """Object that creates a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._place,)


def test_searching_an_index_unpickles_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint beside the index has weights that run code when they are unpickled."""
    folder, mark = tmp_path / "download", tmp_path / "code ran"
    checkpoint = write_stanford_colbert(folder / "model")
    with ColBERTIndex.create(folder / "index", ColBERTModel(checkpoint)) as index:
        index.upsert(["a text", "another one"])
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save({**weights, "more": Payload(mark)}, checkpoint / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    for name in ("download/model", str(checkpoint)):
        options = {"name_or_path": name, "model_kwargs": {"weights_only": False}}
        require_refusal(record(folder / "index", options), "model_kwargs")
        require_refusal(record(folder / "index", {"name_or_path": name}), "a path on this machine")
    assert not mark.exists()


def test_an_open_index_is_given_again_for_the_same_folder_by_another_path(
    colbert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colbert_dir.parent)
    with ColBERTIndex.create(tmp_path / "index", ColBERTModel(colbert_dir.name)) as index:
        assert ColBERTIndex.open_or_create(tmp_path / "index", ColBERTModel(colbert_dir)) is index
