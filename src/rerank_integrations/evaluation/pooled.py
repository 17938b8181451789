"""A bi-encoder: one unit vector a text."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.models.options import STARTER, resolve_device, resolve_dtype


def full_name(model: str) -> str:
    """Return the hub's name of `model` where it is one without an organisation, as SentenceTransformer takes it."""
    if model == STARTER or "/" in model or Path(model).exists():
        return model
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    return model if model.lower() in ORIGINAL_TRANSFORMER_MODELS else f"sentence-transformers/{model}"


class PooledEncoder:
    """Any model that `sentence_transformers.SentenceTransformer` loads, or ``starter``: all-MiniLM-L6-v2."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        from rerank_integrations.starter import base_path

        # As precise as the other models of this machine.
        dtype = resolve_dtype("auto", resolve_device(None))
        name = str(base_path()) if model == STARTER else full_name(model)
        self._model = SentenceTransformer(name, model_kwargs={"dtype": dtype})

    def encode(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return an array a text: float32, *Shape:* (1, dim), of length 1."""
        many = len(texts) > 1 and sys.stderr.isatty()
        vectors = self._model.encode(texts, show_progress_bar=many).astype(np.float32)
        # In float32: in bfloat16 a vector is of length 1 only within 0.4 %.
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return list(vectors[:, None, :])
