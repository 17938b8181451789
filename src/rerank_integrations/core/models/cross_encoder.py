"""`CrossEncoderModel`: query and passage read together by one single-label checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypedDict, get_args, overload

import numpy as np

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import require_texts, whole_number
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models.base import SharedModel
from rerank_integrations.core.models.checkpoints.options import Backend, DType, LoadOptions, ModelKind
from rerank_integrations.core.models.lengths import PairCut, length_remedy, token_budget_batches
from rerank_integrations.core.types import CrossEncoderScale, Scorer
from rerank_integrations.errors import InvalidInputError

if TYPE_CHECKING:
    from rerank_integrations.core.models.loaded_cross_encoder import LoadedCrossEncoder

Activation: TypeAlias = Literal["model", "sigmoid", "raw"]
"""The function from a cross-encoder's logits to its scores, explained at `CrossEncoderModel`."""

Pair: TypeAlias = tuple[str, str]
# sentence-transformers' own examples write pairs as lists.
PairLike: TypeAlias = "Pair | list[str]"

# The activations whose scale does not depend on the checkpoint.
_SCALES: dict[Activation, CrossEncoderScale] = {"raw": "logit", "sigmoid": "probability"}


class _Ranked(TypedDict):
    corpus_id: int
    score: float


class RankedDocument(_Ranked, total=False):
    """One row of `CrossEncoderModel.rank`: the position in the given list, the score and, if wanted, the text."""

    text: str


class PairScore(NamedTuple):
    """The score of a (query, text) pair, which of the two was cut, and the sort key of the pair, highest first."""

    score: float
    cut: PairCut
    order: tuple[float, ...]


class CrossEncoderModel(SharedModel["LoadedCrossEncoder"]):
    """A cross-encoder; constructing one loads nothing, the first use does.

    All instances of equal name, revision, device, dtype and backend share one loaded copy. Any number of threads may
    use it.

    Parameters
    ----------
    name_or_path
        A hub name or a local directory of a sequence classifier with one label (BERT, XLM-R, ModernBERT, DeBERTa, ...),
        of a language model that reranks (Qwen3-Reranker, ...), or of a starter that was trained further; ``"starter"``
        for the one that needs no hub (extra ``[starter]``). docs/reference/models.md lists the families.
    device, dtype, backend, batch_size, idle_timeout
        As for `ColBERTModel`.
    revision, cache_folder, local_files_only, token, trust_remote_code, model_kwargs
        As for `ColBERTModel`.
    max_length
        The length of query and passage together, in tokens, prompt and template included; by default the checkpoint's
        own. Longer pairs are cut, with one `TruncationWarning` per instance; a query is cut to three quarters of the
        length at most.
    activation
        ``"model"``: the checkpoint's own (sigmoid if it names none); ``"sigmoid"``: scores from 0 to 1; ``"raw"``:
        logits.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong type or value; at first use, for a `device` that torch cannot use here, or a
        `max_length` that the template already fills.
    CheckpointError
        At first use: no such checkpoint, several labels, a head that is not in the checkpoint, no padding token, a
        language model that does not say how to ask it for a score, an encoder that does not convert to a graph.
    MissingExtraError
        At first use, if the library of `backend` is not installed.
    InsufficientMemoryError
        At first use, if the model does not fit into the remaining memory.

    Warns
    -----
    FidelityWarning
        At first use, if the graph of `backend` strays from torch on this processor, and a slower computation is used.
    """

    kind: ClassVar[ModelKind] = "cross-encoder"

    def __init__(
        self,
        name_or_path: str | Path = "cross-encoder/ms-marco-MiniLM-L6-v2",
        *,
        device: str | None = None,
        dtype: DType = "auto",
        backend: Backend = "torch",
        batch_size: int = 32,
        idle_timeout: float | None = None,
        max_length: int | None = None,
        activation: Activation = "model",
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, object] | None = None,
    ) -> None:
        load_options = LoadOptions(
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
        if activation not in get_args(Activation):
            raise InvalidInputError(f"activation is {activation!r}; expected one of {', '.join(get_args(Activation))}")
        self._activation = activation
        self._max_length = None if max_length is None else whole_number(max_length, "max_length", 8)
        super().__init__(load_options, batch_size, idle_timeout)

    @staticmethod
    def _load(options: LoadOptions) -> LoadedCrossEncoder:
        from rerank_integrations.core.models.loaded_cross_encoder import LoadedCrossEncoder

        return LoadedCrossEncoder(options)

    def _own_options(self) -> dict[str, object]:
        return {"max_length": self._max_length, "activation": self._activation}

    @property
    def score_scale(self) -> CrossEncoderScale:
        """``"logit"``, ``"probability"`` (0 to 1) or ``"own"``: another activation of the checkpoint; may load it."""
        if self._activation in _SCALES:
            return _SCALES[self._activation]
        with self._lease.loaded() as loaded:
            return self._scale(loaded)

    @overload
    def score(self, query: str, texts: Sequence[str]) -> list[float]: ...

    @overload
    def score(self, query: Sequence[Pair], texts: None = None) -> list[float]: ...

    def score(self, query: str | Sequence[Pair], texts: Sequence[str] | None = None) -> list[float]:
        """Return one score per text, on the scale that `activation` names; higher is better.

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
            return [scored.score for scored in self.score_pairs(_checked_pairs(query, "score"))]
        return [scored.score for scored in self.score_pairs(_pairs_of(query, texts))]

    def score_pairs(self, pairs: Sequence[Pair]) -> list[PairScore]:
        """Return, for each (query, text) pair, its score and what of it was cut; queries may differ within a batch."""
        return self._score_pairs(pairs, self._batch_size)

    @overload
    def predict(
        self,
        inputs: PairLike,
        *,
        batch_size: int | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> np.float32: ...

    @overload
    def predict(
        self,
        inputs: Sequence[PairLike],
        *,
        batch_size: int | None = ...,
        convert_to_numpy: Literal[True] = ...,
    ) -> Floats: ...

    def predict(
        self,
        inputs: PairLike | Sequence[PairLike],
        *,
        batch_size: int | None = None,
        convert_to_numpy: Literal[True] = True,
    ) -> np.float32 | Floats:
        """Score pairs, under the name that sentence-transformers' ``CrossEncoder`` gives to it.

        Parameters
        ----------
        inputs
            (query, text) pairs, or one pair.
        batch_size
            As for `CrossEncoderModel`; by default the model's own.
        convert_to_numpy
            Only ``True``: an array.

        Returns
        -------
        numpy.ndarray
            Float32, one score per pair, on the scale that `activation` names; for one pair a float32.

        Raises
        ------
        InvalidInputError
            For anything but pairs of strings, a `batch_size` below 1, or another `convert_to_numpy`.
        """
        if not convert_to_numpy:
            raise InvalidInputError(f"convert_to_numpy is {convert_to_numpy!r}; expected True: scores come as an array")
        is_one_pair = isinstance(inputs, list | tuple) and len(inputs) == 2 and isinstance(inputs[0], str)
        pairs = _checked_pairs([inputs] if is_one_pair else inputs, "predict")
        scores = np.array([scored.score for scored in self._score_pairs(pairs, batch_size)], dtype=np.float32)
        return np.float32(scores[0]) if is_one_pair else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int | None = None,
    ) -> list[RankedDocument]:
        """Rank texts for a query, under the name that sentence-transformers' ``CrossEncoder`` gives to it.

        Parameters
        ----------
        top_k
            How many of the best are returned; ``None``: all.
        return_documents
            Whether each row has the text as ``text``.
        batch_size
            As for `CrossEncoderModel`; by default the model's own.

        Returns
        -------
        list of dict
            The best first, each with ``corpus_id`` (the position in `documents`) and ``score``.

        Raises
        ------
        InvalidInputError
            For anything but strings, a negative `top_k` or a `batch_size` below 1.
        """
        count = None if top_k is None else whole_number(top_k, "top_k")
        scored = self._score_pairs(_pairs_of(query, documents), batch_size)
        best = sorted(range(len(scored)), key=lambda position: scored[position].order, reverse=True)[:count]
        rows: list[RankedDocument] = [{"corpus_id": position, "score": scored[position].score} for position in best]
        if return_documents:
            for row in rows:
                row["text"] = documents[row["corpus_id"]]
        return rows

    def _score_pairs(self, pairs: Sequence[Pair], batch_size: int | None) -> list[PairScore]:
        size = self._batch_size if batch_size is None else whole_number(batch_size, "batch_size", 1)
        unique = list(dict.fromkeys(pairs))
        if not unique:
            return []
        with telemetry.scoring(self, len(unique)) as span, self._lease.loaded() as loaded:
            scored = self._score_unique(loaded, unique, size, span)
        return [scored[pair] for pair in pairs]

    def _score_unique(
        self, loaded: LoadedCrossEncoder, pairs: list[Pair], batch_size: int, span: telemetry.AnySpan
    ) -> dict[Pair, PairScore]:
        limit = loaded.limit(self._max_length)
        counts = loaded.count_tokens(pairs)
        remedy = length_remedy("max_length", limit, loaded.limit(None), "split the text or rerank with a window")
        self._notice.check("query-passage pairs", counts, limit, remedy)
        lengths = [min(count, limit) for count in counts]
        positions = token_budget_batches(lengths, batch_size, self.device, loaded.side_by_side)
        batches = [[pairs[position] for position in batch] for batch in positions]
        self._describe(span, lengths, batches)
        logit_of: dict[Pair, float] = {}
        for batch, batch_logits in zip(batches, loaded.logits(batches, limit), strict=True):
            logit_of.update(zip(batch, batch_logits, strict=True))
        logits = [logit_of[pair] for pair in pairs]
        scale, scores = self._scale(loaded), self._activate(loaded, logits)
        # A sigmoid rounds numbers far from 0 to one value, so pairs are ordered by the logit; but an activation of the
        # checkpoint's own need not rise with it.
        orders: Iterable[tuple[float, ...]] = (
            zip(scores, logits, strict=True) if scale == "own" else zip(logits, strict=True)
        )
        rows = zip(pairs, scores, _cut(loaded, pairs, counts, limit), orders, strict=True)
        return {pair: PairScore(score, cut, order) for pair, score, cut, order in rows}

    def cuts(self, pairs: Sequence[Pair]) -> list[PairCut]:
        """Return, for each (query, text) pair, which of the two would be cut."""
        if not pairs:
            return []
        with self._lease.loaded() as loaded:
            return _cut(loaded, pairs, loaded.count_tokens(list(pairs)), loaded.limit(self._max_length))

    def pair_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a pair a model of that ``max_length`` reads; ``None``: the most. Loads it."""
        with self._lease.loaded() as loaded:
            return loaded.limit(length)

    def room(self, query: str) -> int:
        """Return the text length, in tokens, that is never cut beside `query`, which is itself cut if need be.

        It is at least half of the tokens that are read of a pair without its markers. Loads the model.
        """
        with self._lease.loaded() as loaded:
            return loaded.text_room(query, loaded.limit(self._max_length))

    def _scale(self, loaded: LoadedCrossEncoder) -> CrossEncoderScale:
        return _SCALES.get(self._activation) or loaded.scale

    def _activate(self, loaded: LoadedCrossEncoder, logits: list[float]) -> list[float]:
        scale = self._scale(loaded)
        if scale == "logit":
            return logits
        if scale == "probability":
            # In double precision: torch's single precision gives 1.0 from logits of 17 on.
            return [_sigmoid(logit) for logit in logits]
        return loaded.activate(logits)


def _cut(loaded: LoadedCrossEncoder, pairs: Sequence[Pair], counts: Sequence[int], limit: int) -> list[PairCut]:
    """Return what is cut of each of `pairs`; `counts` are their tokens, markers included."""
    return [loaded.cut(query, count, limit) for (query, _), count in zip(pairs, counts, strict=True)]


def _pairs_of(query: object, texts: Sequence[str]) -> list[Pair]:
    require_texts([query], "query")  # type: ignore[list-item]
    require_texts(texts)
    return [(query, text) for text in texts]  # type: ignore[misc]


def _checked_pairs(items: object, method: str) -> list[Pair]:
    pairs: list[Any] = list(items) if isinstance(items, Iterable) and not isinstance(items, str) else [items]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise InvalidInputError(
            f"{method} was given {items!r} alone; expected a query and its texts, or (query, text) pairs"
        )
    require_texts([text for pair in pairs for text in pair])
    return [(query, text) for query, text in pairs]


def _sigmoid(value: float) -> float:
    # The two-sided form: exp of a large number overflows.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def as_cross_encoder_model(model: str | Path | Scorer) -> Scorer:
    """Return `model` itself if it scores, or else the `CrossEncoderModel` of that name or path.

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
