"""A bi-encoder: one unit vector a text."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.models.compute import lane_for, on_compute_thread
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
        self._transformer = getattr(self._model[0], "auto_model", None)
        if self._transformer is not None:
            # A copy: truncation and padding are state of a fast tokenizer, and several threads count.
            self._counting_tokenizer = copy.deepcopy(self._model.tokenizer)

    def encode(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Return an array a text: float32, *Shape:* (1, dim), of length 1."""
        many = len(texts) > 1 and sys.stderr.isatty()
        vectors = self._model.encode(texts, show_progress_bar=many).astype(np.float32)
        # In float32: in bfloat16 a vector is of length 1 only within 0.4 %.
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return list(vectors[:, None, :])

    def encode_query(self, text: str) -> NDArray[np.float32]:
        """Return what `encode` returns of one text, computed on the thread that a ColBERT model would compute it on."""
        return on_compute_thread(self._lane(text), lambda: self.encode([text])[0])

    def _lane(self, text: str) -> str:
        from rerank_integrations.core.models.encoder import multiplied_weights

        if self._transformer is None or self._model.device.type != "cpu":
            return "query"
        counted = self._counting_tokenizer([text], truncation=False, padding=False, verbose=False)
        tokens = len(counted["input_ids"][0])
        read = min(tokens, self._model.get_max_seq_length() or tokens)
        return lane_for("query", read * multiplied_weights(self._transformer))
