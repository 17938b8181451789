"""The precision in which models compute on this machine."""

from __future__ import annotations

from rerank_integrations import ColBERTModel, loaded_models


def automatic_dtype() -> str:
    """Return what ``dtype="auto"`` is on the CPU; called before any model is loaded, it loads one and unloads it."""
    model = ColBERTModel("starter", device="cpu")
    model.encode_queries(["precision"])
    (loaded,) = loaded_models()
    model.unload()
    return loaded.dtype
