"""`CrossEncoderModel`: query and passage read together by one single-label checkpoint."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.batching import TruncationNotice, token_budget_batches
from rerank_integrations.core.models.checkpoint import fingerprint
from rerank_integrations.core.models.options import LoadOptions
from rerank_integrations.core.models.registry import Share
from rerank_integrations.core.models.validate import require_length, require_seconds, require_texts
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError

_ACTIVATIONS = ("model", "sigmoid", "raw")


class CrossEncoderModel:
    """A cross-encoder; constructing one loads nothing, the first use does.

    Every instance of equal name, revision, device, dtype and backend shares one loaded copy. Any number of
    threads may use it.

    Parameters
    ----------
    name_or_path
        A hub name or a local directory of a sequence classifier with one label (BERT, RoBERTa, XLM-R, ELECTRA, ...)
        or of a starter that was trained further; ``"starter"`` for the one that needs no hub (extra ``[starter]``).
    device, dtype, backend, batch_size, idle_timeout
        As for `ColBERTModel`.
    revision, cache_folder, local_files_only, token, trust_remote_code, model_kwargs
        As for `ColBERTModel`.
    max_length
        In tokens, of query and passage together; by default the checkpoint's own. Longer pairs are cut, with one
        `TruncationWarning` an instance.
    activation
        ``"model"``: what the checkpoint asks for (sigmoid where it is silent); ``"sigmoid"``: scores from 0 to 1;
        ``"raw"``: logits.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong kind.
    CheckpointError
        At first use: no such checkpoint, several labels, a head that is not in the checkpoint, no padding token.
    """

    def __init__(
        self,
        name_or_path: str | Path = "cross-encoder/ms-marco-MiniLM-L6-v2",
        *,
        device: str | None = None,
        dtype: str = "auto",
        backend: str = "torch",
        batch_size: int = 32,
        idle_timeout: float | None = None,
        max_length: int | None = None,
        activation: str = "model",
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._load_options = LoadOptions(
            str(name_or_path) if isinstance(name_or_path, Path) else name_or_path,
            device=device,
            dtype=dtype,
            backend=backend,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            token=token,
            trust_remote_code=trust_remote_code,
            model_kwargs=model_kwargs,
        )
        if activation not in _ACTIVATIONS:
            raise InvalidInputError(f"activation is {activation!r}; expected one of {', '.join(_ACTIVATIONS)}")
        self._activation = activation
        self._batch_size = require_length(batch_size, "batch_size", 1)
        self._max_length = None if max_length is None else require_length(max_length, "max_length", 8)
        self._notice = TruncationNotice()
        self._idle_timeout = require_seconds(idle_timeout, "idle_timeout")
        self._share = Share("cross-encoder", self._load_options, _load, self._idle_timeout)

    def __repr__(self) -> str:
        return f"CrossEncoderModel({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(CrossEncoderModel, **self.options()), ()

    @property
    def name(self) -> str:
        """The name or path that was given."""
        return self._load_options.name_or_path

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that differ from the defaults; never the access token."""
        given = {
            **self._load_options.arguments(),
            "batch_size": self._batch_size,
            "idle_timeout": self._idle_timeout,
            "max_length": self._max_length,
            "activation": self._activation,
        }
        return {key: value for key, value in given.items() if value != _DEFAULTS.get(key) or key == "name_or_path"}

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the checkpoint's files; a model on the hub is loaded for it."""
        if not self._load_options.is_local:
            with self._share.loaded():
                pass
        return fingerprint(self._load_options, "cross-encoder")

    def unload(self) -> None:
        """Drop the loaded copy, for every instance that shares it; the next use loads it again.

        Calls in flight finish on it; its memory is given back to the operating system once they have.
        """
        self._share.unload()

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return one score a text, on the scale that `activation` names; higher is better.

        Raises
        ------
        InvalidInputError
            If something other than strings is given.
        """
        require_texts([query])
        require_texts(texts)
        unique = list(dict.fromkeys(texts))
        if not unique:
            return []
        with self._share.loaded() as loaded:
            scores = self._score_unique(loaded, query, unique)
        return [scores[text] for text in texts]

    def _score_unique(self, loaded: Any, query: str, texts: list[str]) -> dict[str, float]:
        limit = loaded.limit(self._max_length)
        counts = loaded.count_tokens(query, texts)
        self._notice.check("query-passage pairs", counts, limit, "raise max_length or split the text")
        scores: dict[str, float] = {}
        for batch in token_budget_batches([min(count, limit) for count in counts], self._batch_size):
            chosen = [texts[place] for place in batch]
            logits = loaded.logits(query, chosen, limit)
            scores.update(zip(chosen, self._activate(loaded, logits), strict=True))
        return scores

    def _activate(self, loaded: Any, logits: list[float]) -> list[float]:
        if self._activation == "raw":
            return logits
        if self._activation == "sigmoid":
            return [_sigmoid(logit) for logit in logits]
        activated: list[float] = loaded.activate(logits)
        return activated


def _load(options: LoadOptions) -> Any:
    from rerank_integrations.core.models.pair_scorer import LoadedPairScorer

    return LoadedPairScorer(options)


_DEFAULTS: dict[str, Any] = {
    "dtype": "auto",
    "backend": "torch",
    "batch_size": 32,
    "activation": "model",
    "local_files_only": False,
    "trust_remote_code": False,
}


def _sigmoid(value: float) -> float:
    # The two-sided form: exp of a large number overflows.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def as_cross_encoder_model(model: str | Path | Scorer) -> Any:
    """Return `model` itself, or a `CrossEncoderModel` of that name or path.

    Raises
    ------
    InvalidInputError
        If it is neither.
    """
    if isinstance(model, str | Path):
        return CrossEncoderModel(model)
    if callable(getattr(model, "score", None)):
        return model
    raise InvalidInputError(f"model is of type {type(model).__name__}; expected a name, a path or a CrossEncoderModel")
