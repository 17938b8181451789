"""`CrossEncoderModel`: query and passage read together by one single-label checkpoint."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerank_integrations.core.checks import require_texts, seconds, whole_number
from rerank_integrations.core.models.checkpoints.files import fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions, portable
from rerank_integrations.core.models.lengths import PairCut, TruncationNotice, length_remedy, token_budget_batches
from rerank_integrations.core.models.pool import Share
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError

_ACTIVATIONS = ("model", "sigmoid", "raw")
# Of the activations that do not depend on the checkpoint.
_SCALES = {"raw": "logit", "sigmoid": "probability"}


class PairScore(NamedTuple):
    """The score of a (query, text) pair, which of the two was cut, and what the pair is ordered by, higher first."""

    score: float
    cut: PairCut
    order: tuple[float, ...]


class CrossEncoderModel:
    """A cross-encoder; constructing one loads nothing, the first use does.

    Every instance of equal name, revision, device, dtype and backend shares one loaded copy. Any number of
    threads may use it.

    Parameters
    ----------
    name_or_path
        A hub name or a local directory of a sequence classifier with one label (BERT, XLM-R, ModernBERT, DeBERTa, ...),
        of a language model that reranks (Qwen3-Reranker, ...), or of a starter that was trained further; ``"starter"``
        for the one that needs no hub (extra ``[starter]``). docs/reference/models.md lists families.
    device, dtype, backend, batch_size, idle_timeout
        As for `ColBERTModel`.
    revision, cache_folder, local_files_only, token, trust_remote_code, model_kwargs
        As for `ColBERTModel`.
    max_length
        In tokens, of query and passage together, prompt and template included; by default the checkpoint's own. Longer
        pairs are cut, with one `TruncationWarning` an instance; a query to three quarters of the length at most.
    activation
        ``"model"``: what the checkpoint asks for (sigmoid where it is silent); ``"sigmoid"``: scores from 0 to 1;
        ``"raw"``: logits.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong kind; at first use, for a `device` that torch cannot use here, or a
        `max_length` that the template alone fills.
    CheckpointError
        At first use: no such checkpoint, several labels, a head that is not in the checkpoint, no padding token, a
        language model that does not say how to ask it for a score, an encoder that does not convert to a graph.
    MissingExtraError
        At first use, if the library of `backend` is not installed.
    InsufficientMemoryError
        At first use, if the model does not fit into the memory that is left.

    Warns
    -----
    FidelityWarning
        At first use, if the graph of `backend` strays from torch on this processor, so that something slower computes.
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
        self._batch_size = whole_number(batch_size, "batch_size", 1)
        self._max_length = None if max_length is None else whole_number(max_length, "max_length", 8)
        self._notice = TruncationNotice()
        self._idle_timeout = None if idle_timeout is None else seconds(idle_timeout, "idle_timeout")
        self._fingerprint: str | None = None
        self._share = Share("cross-encoder", self._load_options, _load, self._idle_timeout)

    def __repr__(self) -> str:
        return f"CrossEncoderModel({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(CrossEncoderModel, **portable(self.options())), ()

    @property
    def name(self) -> str:
        """The name or path that was given."""
        return self._load_options.name_or_path

    @property
    def device(self) -> str:
        """The torch device it runs on: as given, or CUDA where there is one, else the CPU."""
        return self._load_options.resolved_device()

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

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the checkpoint's files; a model on the hub is loaded for it."""
        if self._fingerprint is None:
            if not self._load_options.is_local:
                with self._share.loaded():
                    pass
            self._fingerprint = fingerprint(self._load_options, "cross-encoder")
        return self._fingerprint

    @property
    def graph(self) -> Path | None:
        """The folder of the converted encoder; loads the model.

        ``None`` with ``backend="torch"``, and where the graph strays from torch on this processor and is not used.
        """
        with self._share.loaded() as loaded:
            path: Path | None = loaded.graph
        return path

    def unload(self) -> None:
        """Drop the loaded copy, for every instance that shares it; the next use loads it again.

        Calls in flight finish on it; its memory is given back to the operating system once they have.
        """
        self._share.unload()

    @property
    def score_scale(self) -> str:
        """``"logit"``, ``"probability"`` (0 to 1), or ``"own"`` for an activation of the checkpoint's own; loads it."""
        if self._activation in _SCALES:
            return _SCALES[self._activation]
        with self._share.loaded() as loaded:
            return self._scale(loaded)

    def score(self, query: str | Sequence[tuple[str, str]], texts: Sequence[str] | None = None) -> list[float]:
        """Return one score a text, on the scale that `activation` names; higher is better.

        Parameters
        ----------
        query, texts
            One query and its texts; or, as LangChain's own compressor calls it, a list of (query, text) pairs alone.

        Raises
        ------
        InvalidInputError
            If something other than strings is given.
        """
        if texts is None:
            return [one.score for one in self.score_pairs(_pairs(query))]
        require_texts([query], "query")  # type: ignore[list-item]
        require_texts(texts)
        return [one.score for one in self.score_pairs([(query, text) for text in texts])]  # type: ignore[misc]

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[PairScore]:
        """Return, for each (query, text) pair, its score and what of it was cut; any queries, in batches of all."""
        unique = list(dict.fromkeys(pairs))
        if not unique:
            return []
        with self._share.loaded() as loaded:
            scored = self._score_unique(loaded, unique)
        return [scored[pair] for pair in pairs]

    def _score_unique(self, loaded: Any, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], PairScore]:
        limit = loaded.limit(self._max_length)
        counts = loaded.count_tokens(pairs)
        remedy = length_remedy("max_length", limit, loaded.limit(None), "split the text or rerank with a window")
        self._notice.check("query-passage pairs", counts, limit, remedy)
        found: dict[tuple[str, str], float] = {}
        read = [min(count, limit) for count in counts]
        places = token_budget_batches(read, self._batch_size, self.device, loaded.side_by_side)
        batches = [[pairs[place] for place in batch] for batch in places]
        for batch, logits in zip(batches, loaded.logits(batches, limit), strict=True):
            found.update(zip(batch, logits, strict=True))
        logits = [found[pair] for pair in pairs]
        scale, scores = self._scale(loaded), self._activate(loaded, logits)
        # A sigmoid rounds what lies far from 0 to one number. Of an activation of the checkpoint's own it is not known
        # that it rises.
        orders = zip(scores, logits, strict=True) if scale == "own" else zip(logits, strict=True)
        rows = zip(pairs, scores, _cut(loaded, pairs, counts, limit), orders, strict=True)
        return {pair: PairScore(score, cut, order) for pair, score, cut, order in rows}

    def cuts(self, pairs: Sequence[tuple[str, str]]) -> list[PairCut]:
        """Return, for each (query, text) pair, which of the two is longer than the model reads of it."""
        if not pairs:
            return []
        with self._share.loaded() as loaded:
            return _cut(loaded, pairs, loaded.count_tokens(list(pairs)), loaded.limit(self._max_length))

    def pair_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a pair are read by a model of that ``max_length``; ``None``: the most. Loads it."""
        with self._share.loaded() as loaded:
            return int(loaded.limit(length))

    def token_spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, however long; markers are left out."""
        require_texts(texts)
        if not texts:
            return []
        with self._share.loaded() as loaded:
            return list(loaded.spans(list(texts)))

    def room(self, query: str) -> int:
        """Return how many tokens of any text are read whole beside `query`, which is cut for it if need be.

        At least half of what is read of a pair without its markers. Loads the model.
        """
        with self._share.loaded() as loaded:
            return int(loaded.text_room(query, loaded.limit(self._max_length)))

    def _scale(self, loaded: Any) -> str:
        return _SCALES.get(self._activation) or str(loaded.scale)

    def _activate(self, loaded: Any, logits: list[float]) -> list[float]:
        scale = self._scale(loaded)
        if scale == "logit":
            return logits
        if scale == "probability":
            # In double precision: torch's, in single, is 1.0 from logits of 17 on.
            return [_sigmoid(logit) for logit in logits]
        activated: list[float] = loaded.activate(logits)
        return activated


def _load(options: LoadOptions) -> Any:
    from rerank_integrations.core.models.loaded_cross_encoder import LoadedPairScorer

    return LoadedPairScorer(options)


_DEFAULTS: dict[str, Any] = {
    "dtype": "auto",
    "backend": "torch",
    "batch_size": 32,
    "activation": "model",
    "local_files_only": False,
    "trust_remote_code": False,
}


def _cut(loaded: Any, pairs: Sequence[tuple[str, str]], counts: Sequence[int], limit: int) -> list[PairCut]:
    """Return what is cut of each of `pairs`, of `counts` tokens with their markers."""
    return [loaded.cut(query, count, limit) for (query, _), count in zip(pairs, counts, strict=True)]


def _pairs(given: Any) -> list[tuple[str, str]]:
    pairs = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise InvalidInputError(
            f"score was given {given!r} alone; expected a query and its texts, or (query, text) pairs"
        )
    require_texts([text for pair in pairs for text in pair])
    return [(query, text) for query, text in pairs]


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
