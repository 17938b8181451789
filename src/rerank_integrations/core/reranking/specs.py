"""What a component writes down instead of weights: a model's arguments, an index's path."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.model_record import is_taken_on_trust
from rerank_integrations.core.models import (
    ColBERTModel,
    CrossEncoderModel,
    TokenEncoder,
    as_colbert_model,
    as_cross_encoder_model,
)
from rerank_integrations.core.models.checkpoints.options import portable
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError

ModelSpec: TypeAlias = "str | Path | Mapping[str, Any]"
ColBERTLike: TypeAlias = "ModelSpec | TokenEncoder"
CrossEncoderLike: TypeAlias = "ModelSpec | Scorer"
IndexLike: TypeAlias = "ColBERTIndex | str | os.PathLike[str] | Mapping[str, Any]"


def load_colbert(model: ColBERTLike) -> Any:
    """Return the ColBERT model meant by a name, a path, a mapping of constructor arguments, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of these, or a mapping of something other than the constructor's arguments.
    """
    return _built(ColBERTModel, model) if isinstance(model, Mapping) else as_colbert_model(model)


def load_cross_encoder(model: CrossEncoderLike) -> Any:
    """Return the cross-encoder meant by a name, a path, a mapping of constructor arguments, or itself.

    Raises
    ------
    InvalidInputError
        If it is none of these, or a mapping of something other than the constructor's arguments.
    """
    return _built(CrossEncoderModel, model) if isinstance(model, Mapping) else as_cross_encoder_model(model)


def on_device(model: Any, device: str | None) -> Any:
    """Return what `model` is on `device`; ``None`` leaves it as it is.

    Raises
    ------
    InvalidInputError
        If there is no model, or it is loaded already, or said to be, on another device.
    """
    if device is None:
        return model
    if model is None:
        raise InvalidInputError(f"device is {device!r} without a model; expected a model by its name, or no device")
    if isinstance(model, str | Path):
        return {"name_or_path": str(model), "device": device}
    told = (model.get("device") or device) if isinstance(model, Mapping) else getattr(model, "device", None)
    if told != device:
        raise InvalidInputError(f"device is {device!r} with a model on {told!r}; expected the model's device, or None")
    return {**model, "device": device} if isinstance(model, Mapping) else model


def with_arguments(model: Any, arguments: Mapping[str, Any]) -> Any:
    """Return what `model` is with more of its constructor's arguments.

    Raises
    ------
    InvalidInputError
        If the model is loaded already, or one of them was given otherwise before.
    """
    if not arguments:
        return model
    if isinstance(model, str | Path):
        model = {"name_or_path": str(model)}
    if isinstance(model, Mapping):
        for name in arguments:
            if name in model and model[name] != arguments[name]:
                raise InvalidInputError(f"{name} is {model[name]!r} and {arguments[name]!r}; expected it once")
        return {**model, **arguments}
    raise InvalidInputError(
        f"{sorted(arguments)} with a model of type {type(model).__name__}; expected a name or a path"
    )


def require_tokenizer_of(model: Any, tokenizer: str | None) -> None:
    """Raise `InvalidInputError` if `tokenizer` is not the model's own: the two are trained together."""
    if tokenizer is not None and str(tokenizer) != model_name(model):
        raise InvalidInputError(
            f"tokenizer is {tokenizer!r}; expected that of the model, {model_name(model)!r}, or None"
        )


def model_name(model: Any) -> str:
    """Return the name that traces and events show; for a model without one, that of its class."""
    return str(getattr(model, "name", type(model).__name__))


def model_spec(model: Any) -> Any:
    """Return what builds `model` again: its name, or its arguments where some are not the defaults.

    A model in a folder is named by its absolute path, which holds in any working directory.

    A scorer of the user's own, which has no ``options()``, stands for itself.
    """
    if not hasattr(model, "options"):
        return model
    options = portable(model.options())
    return options["name_or_path"] if set(options) == {"name_or_path"} else options


def index_spec(index: ColBERTIndex | None) -> str | None:
    """Return the absolute path of `index`, which opens it again from any working directory."""
    return None if index is None else str(Path(index.path).resolve())


def searched_index_spec(index: ColBERTIndex) -> str | dict[str, Any]:
    """Return what opens `index` again for searching: its path, with the model where its record is not enough."""
    path = str(Path(index.path).resolve())
    if isinstance(index.model, ColBERTModel) and not is_taken_on_trust(index.model):
        return {"path": path, "model": model_spec(index.model)}
    return path


def _built(kind: type[Any], arguments: Mapping[str, Any]) -> Any:
    known = list(inspect.signature(kind).parameters)
    unknown = sorted(str(name) for name in arguments if name not in known)
    if unknown:
        raise InvalidInputError(f"{kind.__name__} has no argument {', '.join(unknown)}; expected {', '.join(known)}")
    return kind(**arguments)
