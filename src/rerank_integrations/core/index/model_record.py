"""The model that an index was made with, as its catalog records it, and how much of that record is trusted.

An index is data, and may come from anywhere. Of its record only a model's name on the hub and the options for reading
texts are trusted: no options that reach the libraries below, no code, no path on the machine that opens it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rerank_integrations.core.index.storage.catalog import Catalog
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.models.checkpoints.options import portable
from rerank_integrations.errors import CheckpointError, IndexFormatError, InvalidInputError, ModelMismatchError

_PROCESS_OPTIONS = ("device", "cache_folder", "idle_timeout")
# The options that are taken from a record, with their types. `ColBERTModel` checks the values.
_TRUSTED_OPTIONS: dict[str, type] = {
    "name_or_path": str,
    "revision": str,
    "dtype": str,
    "backend": str,
    "batch_size": int,
    "query_length": int,
    "document_length": int,
    "local_files_only": bool,
}
# Arguments of `ColBERTModel` that only its caller can give.
_WITHHELD_OPTIONS = (*_PROCESS_OPTIONS, "model_kwargs", "token", "trust_remote_code")
# No length or batch is larger; a larger number could only be meant to exhaust the memory.
_MAX_NUMBER = 2**20
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def model_record(encoder: TokenEncoder) -> str:
    """Return, as JSON, the arguments that build `encoder` on any machine."""
    options = {key: value for key, value in portable(encoder.options()).items() if key not in _PROCESS_OPTIONS}
    try:
        return json.dumps(options)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the options of {encoder.name!r} cannot be recorded: {error}; expected what JSON can hold"
        ) from error


def recorded_model(meta: Mapping[str, str], path: Path) -> TokenEncoder:
    """Return the model that the index at `path` records; loads no weights.

    A record that names a path, or options beside the plain ones, gives a `WithheldModel`.

    Raises
    ------
    IndexFormatError
        If the record builds no `ColBERTModel`.
    """
    try:
        options = json.loads(meta["model"])
        for option in options.keys() - set(_WITHHELD_OPTIONS):
            _require_plain(option, options[option])
        plain = {option: options[option] for option in _TRUSTED_OPTIONS if option in options}
        model = ColBERTModel(**plain)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IndexFormatError(
            f"{path} records a model that ColBERTModel cannot build ({error}); pass the model it was made with"
        ) from error
    withheld = [option for option in _WITHHELD_OPTIONS if option in options]
    if withheld:
        return WithheldModel(path, model.name, f"{', '.join(withheld)}, which can run code or reach other places")
    if _names_path(model.name):
        return WithheldModel(path, model.name, "a path on this machine")
    return model


def document_length(meta: Mapping[str, str], path: Path) -> int | None:
    """Return the ``document_length`` of the model that the index at `path` records; ``None`` for the checkpoint's own.

    Raises
    ------
    IndexFormatError
        If the record is no JSON object.
    """
    try:
        length = json.loads(meta["model"]).get("document_length")
    except (ValueError, AttributeError, RecursionError) as error:
        raise IndexFormatError(f"{path} is damaged: the model that it records is {meta['model'][:100]!r}") from error
    return length if isinstance(length, int) else None


def is_taken_on_trust(model: ColBERTModel) -> bool:
    """Return whether an index that records `model` opens with it, so that its user need not pass it."""
    recorded = set(model.options()) - set(_PROCESS_OPTIONS)
    return recorded <= set(_TRUSTED_OPTIONS) and not _names_path(model.name)


def _require_plain(option: str, value: object) -> None:
    kind = _TRUSTED_OPTIONS.get(option)
    if kind is None:
        raise ValueError(f"ColBERTModel has no argument {option!r}")
    if type(value) is not kind:
        raise ValueError(f"{option} is {value!r}; expected {kind.__name__}")
    if isinstance(value, int) and value > _MAX_NUMBER:
        raise ValueError(f"{option} is {value!r}; expected at most {_MAX_NUMBER}")


def _names_path(name: str) -> bool:
    return name != "starter" and (not _HUB_NAME.fullmatch(name) or Path(name).exists())


class WithheldModel:
    """Stand-in for a recorded model that is not built from an index's record, so that its user must pass it.

    The index opens, and returns what it stores. Whatever needs the model raises `CheckpointError`, which says what was
    recorded and what to pass.
    """

    def __init__(self, index: Path, name: str, recorded: str) -> None:
        self._index, self._name, self._recorded = index, name, recorded

    @property
    def name(self) -> str:
        """The recorded name or path."""
        return self._name

    @property
    def dim(self) -> int:
        """Raise `CheckpointError`, since the model is not loaded."""
        self._refuse()

    @property
    def fingerprint(self) -> str:
        """Raise `CheckpointError`, since the model is not loaded."""
        self._refuse()

    def options(self) -> NoReturn:
        """Raise `CheckpointError`, since the recorded options would pass elsewhere for the user's own choice."""
        self._refuse()

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        """Raise `CheckpointError`, since the model is not loaded."""
        self._refuse()

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        """Raise `CheckpointError`, since the model is not loaded."""
        self._refuse()

    def explain(self, query: str, text: str) -> NoReturn:
        """Raise `CheckpointError`, since the model is not loaded."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CheckpointError(
            f"the index at {str(self._index)!r} records its model {self._name!r} with {self._recorded}; such a "
            "model is not loaded because an index names it. If you trust it, pass it yourself: "
            f"ColBERTIndex.open(path, ColBERTModel({self._name!r}, ...)), index={{'path': ..., 'model': ...}} in a "
            "component, or --model on the command line"
        )


def require_model(catalog: Catalog, path: Path, model: TokenEncoder) -> None:
    """Raise `ModelMismatchError` unless the index at `path` was made with this model."""
    with catalog.read() as transaction:
        recorded = transaction.meta()["fingerprint"]
    if recorded != model.fingerprint:
        raise ModelMismatchError(
            f"{path} was made with a model of fingerprint {recorded}; {model.name!r} has {model.fingerprint}. "
            "Open it with the model that made it, or index anew."
        )
