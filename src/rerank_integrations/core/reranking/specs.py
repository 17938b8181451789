"""Specifications that stand for loaded objects: a model's name or arguments, an index's path."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

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
from rerank_integrations.core.reranking.remote import RemoteReranker
from rerank_integrations.core.types import ListwiseScorer, Scorer
from rerank_integrations.errors import InvalidInputError

# Constructor arguments by name, of any kind.
Arguments: TypeAlias = "Mapping[str, Any]"
ModelSpec: TypeAlias = "str | Path | Arguments"
ColBERTLike: TypeAlias = "ModelSpec | TokenEncoder"
CrossEncoderLike: TypeAlias = "ModelSpec | Scorer | ListwiseScorer"
IndexLike: TypeAlias = "ColBERTIndex | str | os.PathLike[str] | Arguments"

Model = TypeVar("Model")


def load_colbert(model: ColBERTLike) -> TokenEncoder:
    """Return the ColBERT model of a name, a path or a mapping of constructor arguments, or `model` itself.

    Raises
    ------
    InvalidInputError
        If it is none of these, or a mapping of something other than the constructor's arguments.
    """
    encoder: TokenEncoder = _construct(ColBERTModel, model) if isinstance(model, Mapping) else as_colbert_model(model)
    return encoder


def load_cross_encoder(model: CrossEncoderLike) -> Scorer | ListwiseScorer:
    """Return the cross-encoder of a name, a path or a mapping of constructor arguments, or `model` itself.

    A mapping with a ``url`` has the arguments of a `RemoteReranker`. A `ListwiseScorer` is returned itself.

    Raises
    ------
    InvalidInputError
        If it is none of these, or a mapping of something other than the constructor's arguments.
    """
    scorer: Scorer | ListwiseScorer
    if callable(getattr(model, "score_list", None)):
        scorer = cast("ListwiseScorer", model)
    elif not isinstance(model, Mapping):
        scorer = as_cross_encoder_model(cast("str | Path | Scorer", model))
    elif "url" in model:
        scorer = _construct(RemoteReranker, model)
    else:
        scorer = _construct(CrossEncoderModel, model)
    return scorer


def on_device(model: Model, device: str | None) -> Model | Arguments:
    """Return `model`, or its arguments with `device`; ``None`` leaves the model as it is.

    Raises
    ------
    InvalidInputError
        If there is no model, or one that is loaded on another device or has one among its arguments.
    """
    if device is None:
        return model
    if model is None:
        raise InvalidInputError(f"device is {device!r} without a model; expected a model by its name, or no device")
    if isinstance(model, str | Path):
        return {"name_or_path": str(model), "device": device}
    present = (model.get("device") or device) if isinstance(model, Mapping) else getattr(model, "device", None)
    if present != device:
        raise InvalidInputError(
            f"device is {device!r} with a model on {present!r}; expected the model's device, or None"
        )
    return {**model, "device": device} if isinstance(model, Mapping) else model


def with_arguments(model: Model, arguments: Arguments) -> Model | Arguments:
    """Return `model`, a name, a path or a mapping, as a mapping with more of its constructor's arguments.

    Raises
    ------
    InvalidInputError
        If the model is loaded already, or has another value for one of `arguments`.
    """
    if not arguments:
        return model
    spec: object = {"name_or_path": str(model)} if isinstance(model, str | Path) else model
    if isinstance(spec, Mapping):
        for name in arguments:
            if name in spec and spec[name] != arguments[name]:
                raise InvalidInputError(f"{name} is {spec[name]!r} and {arguments[name]!r}; expected it once")
        return {**spec, **arguments}
    raise InvalidInputError(
        f"{sorted(arguments)} with a model of type {type(model).__name__}; expected a name or a path"
    )


def require_tokenizer_of(model: object, tokenizer: str | None) -> None:
    """Raise `InvalidInputError` unless `tokenizer` is the model's own, with which it was trained, or ``None``."""
    if tokenizer is not None and str(tokenizer) != model_name(model):
        raise InvalidInputError(
            f"tokenizer is {tokenizer!r}; expected that of the model, {model_name(model)!r}, or None"
        )


def model_name(model: object) -> str:
    """Return the name that traces and events show: the model's, or that of its class."""
    return str(getattr(model, "name", type(model).__name__))


def model_spec(model: object) -> object:
    """Return the name of `model`, or its arguments where some are not the defaults; either constructs it again.

    A model in a folder is named by its absolute path, which is valid in any working directory.

    A user's own scorer, which has no ``options()``, stands for itself.
    """
    if not hasattr(model, "options"):
        return model
    options = portable(model.options())
    return options["name_or_path"] if set(options) == {"name_or_path"} else options


def index_spec(index: ColBERTIndex | None) -> str | None:
    """Return the absolute path of `index`, from which any working directory opens it again."""
    return None if index is None else str(Path(index.path).resolve())


def searched_index_spec(index: ColBERTIndex) -> str | dict[str, object]:
    """Return the path of `index`, with its model where the index's record of it is not enough to search again."""
    path = str(Path(index.path).resolve())
    if isinstance(index.model, ColBERTModel) and not is_taken_on_trust(index.model):
        return {"path": path, "model": model_spec(index.model)}
    return path


def _construct(kind: type[Model], arguments: Arguments) -> Model:
    known = list(inspect.signature(kind).parameters)
    unknown = sorted(str(name) for name in arguments if name not in known)
    if unknown:
        raise InvalidInputError(f"{kind.__name__} has no argument {', '.join(unknown)}; expected {', '.join(known)}")
    return kind(**arguments)
