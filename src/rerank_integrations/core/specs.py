"""What a component writes down instead of weights: a model's arguments, an index's path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import (
    ColBERTModel,
    CrossEncoderModel,
    TokenEncoder,
    as_colbert_model,
    as_cross_encoder_model,
)
from rerank_integrations.core.types import Scorer

ModelSpec: TypeAlias = "str | Path | Mapping[str, Any]"
ColBERTLike: TypeAlias = "ModelSpec | TokenEncoder"
CrossEncoderLike: TypeAlias = "ModelSpec | Scorer"
IndexLike: TypeAlias = "ColBERTIndex | str | os.PathLike[str]"


def load_colbert(model: ColBERTLike) -> Any:
    """Return the ColBERT model meant by a name, a path, a mapping of constructor arguments, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of these.
    """
    return ColBERTModel(**model) if isinstance(model, Mapping) else as_colbert_model(model)


def load_cross_encoder(model: CrossEncoderLike) -> Any:
    """Return the cross-encoder meant by a name, a path, a mapping of constructor arguments, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of these.
    """
    return CrossEncoderModel(**model) if isinstance(model, Mapping) else as_cross_encoder_model(model)


def model_name(model: Any) -> str:
    """Return the name that traces and events show; for a model without one, that of its class."""
    return str(getattr(model, "name", type(model).__name__))


def model_spec(model: Any) -> Any:
    """Return what builds `model` again: its name, or its arguments where some are not the defaults.

    A scorer of the user's own, which has no ``options()``, stands for itself.
    """
    if not hasattr(model, "options"):
        return model
    options = model.options()
    return options["name_or_path"] if set(options) == {"name_or_path"} else options


def index_spec(index: ColBERTIndex | None) -> str | None:
    """Return the absolute path of `index`, which opens it again from any working directory."""
    return None if index is None else str(Path(index.path).resolve())
