"""The model that an index was made with, as its catalog records it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rerank_integrations.core.index.catalog import Catalog, read_meta
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.errors import IndexFormatError, InvalidInputError, ModelMismatchError

_OF_THIS_PROCESS = ("device", "cache_folder", "idle_timeout")


def model_record(encoder: TokenEncoder) -> str:
    """Return, as JSON, the arguments that build `encoder` on any machine."""
    options = {key: value for key, value in encoder.options().items() if key not in _OF_THIS_PROCESS}
    name = options.get("name_or_path")
    if isinstance(name, str) and name != "starter" and Path(name).is_dir():
        options["name_or_path"] = str(Path(name).resolve())
    try:
        return json.dumps(options)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the options of {encoder.name!r} cannot be recorded: {error}; expected what JSON can hold"
        ) from error


def recorded_model(meta: Mapping[str, str], path: Path) -> TokenEncoder:
    """Return the model that the index at `path` records; loads no weights.

    Raises
    ------
    IndexFormatError
        If the record builds no `ColBERTModel`.
    """
    try:
        options = json.loads(meta["model"])
        # An index is data: it must not make anyone run a checkpoint's own code.
        options.pop("trust_remote_code", None)
        (options.get("model_kwargs") or {}).pop("trust_remote_code", None)
        return ColBERTModel(**options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IndexFormatError(
            f"{path} records a model that ColBERTModel cannot build ({error}); pass the model it was made with"
        ) from error


def require_model(catalog: Catalog, path: Path, model: TokenEncoder) -> None:
    """Raise `ModelMismatchError` unless the index at `path` was made with this model."""
    with catalog.read() as connection:
        recorded = read_meta(connection, path)["fingerprint"]
    if recorded != model.fingerprint:
        raise ModelMismatchError(
            f"{path} was made with a model of fingerprint {recorded}; {model.name!r} has {model.fingerprint}. "
            "Open it with the model that made it, or index anew."
        )
