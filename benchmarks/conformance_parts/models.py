"""Tiny models for every component: checkpoints with random weights, embeddings, and models that call a hook."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.embeddings import Embeddings
from llama_index.core.embeddings import BaseEmbedding
from pydantic import PrivateAttr

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

from checkpoints import write_cross_encoder, write_multi_vector, write_plain_encoder
from hooked import HookedEncoder, HookedScorer

from rerank_integrations import ColBERTModel, CrossEncoderModel

__all__ = [
    "FLASHRANK",
    "Hook",
    "HookedCrossEncoder",
    "HookedEncoder",
    "HookedScorer",
    "LetterEmbedding",
    "LetterEmbeddings",
    "Models",
    "calling",
]

Hook = Callable[[], None]
FLASHRANK = "ms-marco-TinyBERT-L-2-v2"


class Models:
    """Checkpoints in a temporary folder, each written when it is first used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def new_folder(self) -> Path:
        self._count += 1
        return self.folder / f"index-{self._count}"

    @cached_property
    def cross_encoder_path(self) -> str:
        return str(write_cross_encoder(self.folder / "cross-encoder"))

    @cached_property
    def encoder_path(self) -> str:
        return str(write_plain_encoder(self.folder / "encoder"))

    @cached_property
    def colbert(self) -> ColBERTModel:
        return ColBERTModel(write_multi_vector(self.folder / "multi-vector"), dtype="float32")

    @cached_property
    def cross_encoder(self) -> CrossEncoderModel:
        return CrossEncoderModel(self.cross_encoder_path, dtype="float32")

    @cached_property
    def flashrank_folder(self) -> str:
        """The tiny cross-encoder in the files of a FlashRank model, which is otherwise fetched from the hub."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        target = self.folder / "flashrank" / FLASHRANK
        target.mkdir(parents=True)
        model = AutoModelForSequenceClassification.from_pretrained(self.cross_encoder_path).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.cross_encoder_path)
        tokenizer.save_pretrained(target)
        model.config.save_pretrained(target)
        (target / "special_tokens_map.json").write_text("{}")
        settings = json.loads((target / "tokenizer_config.json").read_text())
        settings |= {"model_max_length": 512, "pad_token": tokenizer.pad_token}
        (target / "tokenizer_config.json").write_text(json.dumps(settings))
        names = ("input_ids", "attention_mask", "token_type_ids")
        pair = tokenizer(["why", "why is Mars red"], ["red", "rust is red"], padding=True, return_tensors="pt")
        batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=512)
        torch.onnx.export(
            model,
            kwargs={name: pair[name] for name in names},
            f=str(target / "flashrank-TinyBERT-L-2-v2.onnx"),
            input_names=list(names),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch, 1: length} for name in names},
            dynamo=True,
            verbose=False,
        )
        return str(target.parent)


class HookedCrossEncoder(BaseCrossEncoder):
    """LangChain's interface of a cross-encoder."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        self._hook()
        return [float(len(text)) for _, text in text_pairs]


def letters(text: str) -> list[float]:
    """Return a vector of unit length that counts characters by their code."""
    counts = np.bincount([ord(character) % 64 for character in text], minlength=64) + 1e-3
    return [float(value) for value in counts / np.linalg.norm(counts)]


class LetterEmbeddings(Embeddings):
    """LangChain's interface of a bi-encoder."""

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [letters(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if self._hook:
            self._hook()
        return letters(text)


class LetterEmbedding(BaseEmbedding):
    """LlamaIndex's interface of a bi-encoder."""

    _hook: Hook | None = PrivateAttr(default=None)

    def _get_text_embedding(self, text: str) -> list[float]:
        return letters(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        if self._hook:
            self._hook()
        return letters(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)


def calling(hook: Hook, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with a call of `hook` before it."""

    def hooked(*arguments: Any, **named: Any) -> Any:
        hook()
        return function(*arguments, **named)

    return hooked
