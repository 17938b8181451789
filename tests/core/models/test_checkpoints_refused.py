"""Checkpoints with meaningless scores are refused by name and reason before any score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import (
    FAMILIES,
    write_cross_encoder,
    write_multi_vector,
    write_plain_encoder,
    write_pylate_colbert,
    write_sentence_transformer,
    write_stanford_colbert,
)
from checkpoints.vocabulary import BERT_SPECIALS, bert_tokenizer, write_tokenizer
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from rerank_integrations import CheckpointError, ColBERTModel, CrossEncoderModel, RerankError

Write = Callable[[Path], Path]


def without(write: Write, filename: str, *prefixes: str) -> Write:
    """Write a checkpoint whose weight file lacks every name that starts with one of `prefixes`."""

    def build(path: Path) -> Path:
        path = write(path)
        weights = load_file(path / filename)
        kept = {name: value for name, value in weights.items() if not name.startswith(prefixes)}
        assert len(kept) < len(weights)
        save_file(kept, path / filename, metadata={"format": "pt"})
        return path

    return build


def without_pad_token(write: Write) -> Write:
    def build(path: Path) -> Path:
        path = write(path)
        specials = {name: token for name, token in BERT_SPECIALS.items() if name != "pad_token"}
        (path / "vocab.txt").unlink(missing_ok=True)
        write_tokenizer(path, bert_tokenizer(), "PreTrainedTokenizerFast", specials)
        return path

    return build


def without_file(write: Write, filename: str) -> Write:
    def build(path: Path) -> Path:
        path = write(path)
        (path / filename).unlink()
        return path

    return build


def with_broken_file(write: Write, filename: str) -> Write:
    """Write a checkpoint with one file cut in half, as after an interrupted download."""

    def build(path: Path) -> Path:
        path = write(path)
        content = (path / filename).read_bytes()
        (path / filename).write_bytes(content[: len(content) // 2])
        return path

    return build


def masked_language_model(path: Path) -> Path:
    """Write a checkpoint like bert-base-uncased: an encoder under ``bert.`` and a head for another task."""
    write_plain_encoder(path)
    config = BertConfig.from_json_file(path / "config.json")
    BertForMaskedLM(config).save_pretrained(path)
    return path


def without_tokenizer(write: Write) -> Write:
    def build(path: Path) -> Path:
        path = write(path)
        for name in ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
            (path / name).unlink(missing_ok=True)
        return path

    return build


def nothing(path: Path) -> Path:
    return path / "absent"


def empty_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


NO_COLBERT: dict[str, tuple[Write, str]] = {
    "plain encoder": (write_plain_encoder, "plain encoder"),
    "masked language model": (masked_language_model, "plain encoder"),
    "bi-encoder": (write_sentence_transformer, "projection"),
    "bi-encoder with Dense": (lambda path: write_sentence_transformer(path, with_dense=True), "projection"),
    "cross-encoder": (write_cross_encoder, "projection"),
    "Stanford without projection": (without(write_stanford_colbert, "model.safetensors", "linear."), "linear.weight"),
    "Stanford without a layer": (
        without(write_stanford_colbert, "model.safetensors", "bert.encoder.layer.1."),
        r"encoder\.layer\.1",
    ),
    "PyLate without its Dense": (without_file(write_pylate_colbert, "1_Dense/model.safetensors"), "cannot be loaded"),
    "multi-vector without a layer": (
        without(write_multi_vector, "model.safetensors", "encoder.layer.1."),
        r"encoder\.layer\.1",
    ),
    "no padding token": (without_pad_token(write_stanford_colbert), "padding token"),
    "no tokenizer": (without_tokenizer(write_multi_vector), "no tokenizer"),
    "half a weight file": (with_broken_file(write_stanford_colbert, "model.safetensors"), "cannot be loaded"),
    "half a configuration": (with_broken_file(write_stanford_colbert, "config.json"), "config.json"),
    "missing directory": (nothing, "no checkpoint"),
    "empty directory": (empty_folder, "no checkpoint"),
}

NO_CROSS_ENCODER: dict[str, tuple[Write, str]] = {
    **{
        f"{family} without a head": (
            lambda path, family=family: write_cross_encoder(path, family, with_head=False),
            r"classifier",
        )
        for family in FAMILIES
    },
    "head in the configuration only": (
        without(write_cross_encoder, "model.safetensors", "classifier."),
        r"classifier\.(weight|bias).*random",
    ),
    "head without its bias": (
        without(write_cross_encoder, "model.safetensors", "classifier.bias"),
        r"classifier\.bias",
    ),
    "pooler missing": (without(write_cross_encoder, "model.safetensors", "bert.pooler."), "pooler"),
    "a layer missing": (
        without(write_cross_encoder, "model.safetensors", "bert.encoder.layer.1."),
        r"encoder\.layer\.1",
    ),
    "masked language model": (masked_language_model, "classifier"),
    "bi-encoder": (write_sentence_transformer, "classifier"),
    "ColBERT": (write_stanford_colbert, "classifier"),
    "three labels": (lambda path: write_cross_encoder(path, num_labels=3), "3 labels"),
    "two labels": (lambda path: write_cross_encoder(path, "roberta", num_labels=2), "2 labels"),
    "no padding token": (lambda path: write_cross_encoder(path, pad_token=False), "padding token"),
    **{
        f"{family} without a tokenizer": (
            without_tokenizer(lambda path, family=family: write_cross_encoder(path, family)),
            "no tokenizer|cannot be loaded",
        )
        for family in FAMILIES
    },
    "half a weight file": (with_broken_file(write_cross_encoder, "model.safetensors"), "cannot be loaded"),
    "missing directory": (nothing, "no checkpoint"),
    "empty directory": (empty_folder, "no checkpoint"),
}


@pytest.mark.parametrize("case", NO_COLBERT)
def test_colbert_model_refuses(case: str, tmp_path: Path) -> None:
    write, reason = NO_COLBERT[case]
    path = write(tmp_path / "checkpoint")
    calls: list[Callable[[ColBERTModel], object]] = [
        lambda model: model.encode_documents(["a text"]),
        lambda model: model.encode_queries(["a query"]),
        lambda model: model.score("a query", ["a text"]),
        lambda model: model.dim,
    ]
    for call in calls:
        with pytest.raises(CheckpointError, match=reason) as refusal:
            call(ColBERTModel(path, dtype="float32", device="cpu"))
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize("case", NO_CROSS_ENCODER)
def test_cross_encoder_model_refuses(case: str, tmp_path: Path) -> None:
    write, reason = NO_CROSS_ENCODER[case]
    path = write(tmp_path / "checkpoint")
    model = CrossEncoderModel(path, dtype="float32", device="cpu")
    for _ in range(2):  # the refusal is not forgotten
        with pytest.raises(CheckpointError, match=reason) as refusal:
            model.score("a query", ["a text"])
        assert str(path) in str(refusal.value)


def test_a_refused_checkpoint_works_once_it_is_mended(tmp_path: Path) -> None:
    path = without(write_cross_encoder, "model.safetensors", "classifier.")(tmp_path)
    model = CrossEncoderModel(path, dtype="float32", device="cpu")
    with pytest.raises(CheckpointError):
        model.score("a query", ["a text"])
    write_cross_encoder(path)
    assert len(model.score("a query", ["a text"])) == 1


@pytest.mark.parametrize("kind", [ColBERTModel, CrossEncoderModel])
def test_a_hub_name_that_cannot_be_reached_is_named(kind: type[ColBERTModel] | type[CrossEncoderModel]) -> None:
    model = kind("no-such-owner/no-such-model", local_files_only=True)
    with pytest.raises(CheckpointError, match="no-such-owner/no-such-model"):
        model.score("a query", ["a text"])
    assert issubclass(CheckpointError, RerankError)


def test_a_punctuation_only_document_is_no_reason_to_refuse(stanford_dir: Path) -> None:
    """A trained projection in an odd but complete checkpoint is accepted."""
    metadata = json.loads((stanford_dir / "artifact.metadata").read_text())
    assert metadata["mask_punctuation"]
    assert len(ColBERTModel(stanford_dir, dtype="float32", device="cpu").score("?", ["!!!"])) == 1
