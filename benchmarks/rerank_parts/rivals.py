"""LlamaIndex's own rerankers, loaded with the starter models' weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from sentence_transformers import CrossEncoder

from rerank_integrations import starter

_PACKAGE, _VERSION = "llama-index-postprocessor-colbert-rerank", "0.6.0"


class RivalAbsentError(Exception):
    """A package to compare with is missing or has another version; the message says what to do."""


def colbert_rerank(folder: Path, top_n: int) -> BaseNodePostprocessor:
    """Return LlamaIndex's ``ColbertRerank`` with the encoder of the starter ColBERT.

    Its class loads an encoder by `AutoModel` and drops the projection of whatever checkpoint it is given, so none is
    written to `folder`.
    """
    _require_installed()
    from llama_index.postprocessor.colbert_rerank import ColbertRerank

    encoder: Any = starter.colbert_modules()[0]
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    made: BaseNodePostprocessor = ColbertRerank(model=str(folder), tokenizer=str(folder), top_n=top_n, device="cpu")
    return made


def sentence_transformer_rerank(folder: Path, top_n: int) -> BaseNodePostprocessor:
    """Return LlamaIndex's ``SentenceTransformerRerank`` with the starter cross-encoder, written to `folder`."""
    CrossEncoder(modules=starter.cross_encoder_modules(), device="cpu").save_pretrained(str(folder))
    return SentenceTransformerRerank(model=str(folder), top_n=top_n, device="cpu")


def _require_installed() -> None:
    try:
        installed = version(_PACKAGE)
    except PackageNotFoundError:
        installed = "none"
    if installed != _VERSION:
        raise RivalAbsentError(
            f"{_PACKAGE} {_VERSION} is compared with, and {installed} is installed; "
            f"pip install --no-deps {_PACKAGE}=={_VERSION}"
        )
