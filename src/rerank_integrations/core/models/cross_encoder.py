"""`CrossEncoderModel`: query and passage read together by one single-label checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypedDict, get_args, overload

import numpy as np

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import is_number, require_texts, whole_number
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models.base import SharedModel
from rerank_integrations.core.models.checkpoints.options import Backend, DType, LoadOptions, ModelKind
from rerank_integrations.core.models.lengths import (
    PairCut,
    TruncationNotice,
    length_remedy,
    token_budget_batches,
)
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
    temperature
        The number above 0 that a logit is divided by before the sigmoid, with ``activation="sigmoid"`` alone: 5 for
        zeroentropy/zerank-2, as its card says. The order does not change.
    instruction
        For a language model that reranks: what makes a text relevant, in place of the checkpoint's own instruction. A
        single call may have another one. All instructions share one loaded copy.

    Raises
    ------
    InvalidInputError
        At once, for an argument of a wrong type or value; at first use, for a `device` that torch cannot use here, a
        `max_length` that the template already fills, or an `instruction` that the model does not read.
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

    def __init__(  # noqa: PLR0913 (all but the first are keywords with a default)
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
        temperature: float = 1.0,
        instruction: str | None = None,
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
        self._temperature = _require_temperature(temperature, activation)
        self._instruction = _require_instruction(instruction)
        self._max_length = None if max_length is None else whole_number(max_length, "max_length", 8)
        super().__init__(load_options, batch_size, idle_timeout)

    @staticmethod
    def _load(options: LoadOptions) -> LoadedCrossEncoder:
        from rerank_integrations.core.models.loaded_cross_encoder import LoadedCrossEncoder

        return LoadedCrossEncoder(options)

    def _own_options(self) -> dict[str, object]:
        return {
            "max_length": self._max_length,
            "activation": self._activation,
            "temperature": self._temperature,
            "instruction": self._instruction,
        }

    def with_instruction(self, instruction: str | None) -> CrossEncoderModel:
        """Return this model with another instruction, on the same loaded copy; ``None`` is the checkpoint's own.

        Raises
        ------
        InvalidInputError
            For anything but a string with some text, or ``None``; at first use, if the model does not read one.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._instruction = _require_instruction(instruction)
        other._notice = TruncationNotice()
        return other

    @property
    def score_scale(self) -> CrossEncoderScale:
        """``"logit"``, ``"probability"`` (0 to 1) or ``"own"``: another activation of the checkpoint; may load it."""
        if self._activation in _SCALES:
            return _SCALES[self._activation]
        with self._lease.loaded() as loaded:
            return self._scale(loaded)

    @overload
    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = ...) -> list[float]: ...

    @overload
    def score(self, query: Sequence[Pair], texts: None = None, *, instruction: str | None = ...) -> list[float]: ...

    def score(
        self, query: str | Sequence[Pair], texts: Sequence[str] | None = None, *, instruction: str | None = None
    ) -> list[float]:
        """Return one score per text, on the scale that `activation` names; higher is better.

        Parameters
        ----------
        query, texts
            One query and its texts; or, as LangChain's own compressor calls it, a list of (query, text) pairs alone.
        instruction
            As for `CrossEncoderModel`, for this call; ``None``: the model's own.

        Raises
        ------
        InvalidInputError
            If something other than strings is given, or for an `instruction` that the model does not read.
        """
        pairs = _checked_pairs(query, "score") if texts is None else _pairs_of(query, texts)
        return [scored.score for scored in self.score_pairs(pairs, instruction=instruction)]

    def score_pairs(self, pairs: Sequence[Pair], *, instruction: str | None = None) -> list[PairScore]:
        """Return, for each (query, text) pair, its score and what of it was cut; queries may differ within a batch."""
        return self._score_pairs(pairs, self._batch_size, instruction)

    @overload
    def predict(
        self,
        inputs: PairLike,
        *,
        batch_size: int | None = ...,
        convert_to_numpy: Literal[True] = ...,
        instruction: str | None = ...,
    ) -> np.float32: ...

    @overload
    def predict(
        self,
        inputs: Sequence[PairLike],
        *,
        batch_size: int | None = ...,
        convert_to_numpy: Literal[True] = ...,
        instruction: str | None = ...,
    ) -> Floats: ...

    def predict(
        self,
        inputs: PairLike | Sequence[PairLike],
        *,
        batch_size: int | None = None,
        convert_to_numpy: Literal[True] = True,
        instruction: str | None = None,
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
        instruction
            As for `CrossEncoderModel`, for this call; sentence-transformers calls it ``prompt``.

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
        scores = np.array(
            [scored.score for scored in self._score_pairs(pairs, batch_size, instruction)], dtype=np.float32
        )
        return np.float32(scores[0]) if is_one_pair else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int | None = None,
        instruction: str | None = None,
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
        instruction
            As for `CrossEncoderModel`, for this call.

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
        scored = self._score_pairs(_pairs_of(query, documents), batch_size, instruction)
        best = sorted(range(len(scored)), key=lambda position: scored[position].order, reverse=True)[:count]
        rows: list[RankedDocument] = [{"corpus_id": position, "score": scored[position].score} for position in best]
        if return_documents:
            for row in rows:
                row["text"] = documents[row["corpus_id"]]
        return rows

    def _score_pairs(self, pairs: Sequence[Pair], batch_size: int | None, instruction: str | None) -> list[PairScore]:
        chosen = self._instruction if instruction is None else _require_instruction(instruction)
        size = self._batch_size if batch_size is None else whole_number(batch_size, "batch_size", 1)
        unique = list(dict.fromkeys(pairs))
        if not unique:
            return []
        with telemetry.scoring(self, len(unique)) as span, self._lease.loaded() as loaded:
            scored = self._score_unique(loaded, unique, size, chosen, span)
        return [scored[pair] for pair in pairs]

    def _score_unique(
        self,
        loaded: LoadedCrossEncoder,
        pairs: list[Pair],
        batch_size: int,
        instruction: str | None,
        span: telemetry.AnySpan,
    ) -> dict[Pair, PairScore]:
        limit = loaded.limit(self._max_length, instruction)
        counts = loaded.count_tokens(pairs, instruction)
        remedy = length_remedy(
            "max_length", limit, loaded.limit(None, instruction), "split the text or rerank with a window"
        )
        self._notice.check("query-passage pairs", counts, limit, remedy)
        lengths = [min(count, limit) for count in counts]
        positions = token_budget_batches(lengths, batch_size, self.device, loaded.side_by_side)
        batches = [[pairs[position] for position in batch] for batch in positions]
        self._describe(span, lengths, batches)
        logit_of: dict[Pair, float] = {}
        for batch, batch_logits in zip(batches, loaded.logits(batches, limit, instruction), strict=True):
            logit_of.update(zip(batch, batch_logits, strict=True))
        logits = [logit_of[pair] for pair in pairs]
        scale, scores = self._scale(loaded), self._activate(loaded, logits)
        # A sigmoid rounds numbers far from 0 to one value, so pairs are ordered by the logit; but an activation of the
        # checkpoint's own need not rise with it.
        orders: Iterable[tuple[float, ...]] = (
            zip(scores, logits, strict=True) if scale == "own" else zip(logits, strict=True)
        )
        rows = zip(pairs, scores, _cut(loaded, pairs, counts, limit, instruction), orders, strict=True)
        return {pair: PairScore(score, cut, order) for pair, score, cut, order in rows}

    def cuts(self, pairs: Sequence[Pair]) -> list[PairCut]:
        """Return, for each (query, text) pair, which of the two would be cut."""
        if not pairs:
            return []
        chosen = self._instruction
        with self._lease.loaded() as loaded:
            counts, limit = loaded.count_tokens(list(pairs), chosen), loaded.limit(self._max_length, chosen)
            return _cut(loaded, pairs, counts, limit, chosen)

    def pair_limit(self, length: int | None = None) -> int:
        """Return how many tokens of a pair a model of that ``max_length`` reads; ``None``: the most. Loads it."""
        with self._lease.loaded() as loaded:
            return loaded.limit(length, self._instruction)

    def room(self, query: str) -> int:
        """Return the text length, in tokens, that is never cut beside `query`, which is itself cut if need be.

        It is at least half of the tokens that are read of a pair without its markers. Loads the model.
        """
        with self._lease.loaded() as loaded:
            limit = loaded.limit(self._max_length, self._instruction)
            return loaded.text_room(query, limit, self._instruction)

    def _scale(self, loaded: LoadedCrossEncoder) -> CrossEncoderScale:
        return _SCALES.get(self._activation) or loaded.scale

    def _activate(self, loaded: LoadedCrossEncoder, logits: list[float]) -> list[float]:
        scale = self._scale(loaded)
        if scale == "logit":
            return logits
        if scale == "probability":
            # In double precision: torch's single precision gives 1.0 from logits of 17 on.
            return [_sigmoid(logit / self._temperature) for logit in logits]
        return loaded.activate(logits)


def _require_temperature(temperature: float, activation: Activation) -> float:
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise InvalidInputError(f"temperature is {temperature!r}; expected a number above 0")
    if temperature != 1 and activation != "sigmoid":
        raise InvalidInputError(
            f"temperature is {temperature!r} with activation={activation!r}; expected activation='sigmoid', which it "
            "belongs to, or a temperature of 1"
        )
    return float(temperature)


def _require_instruction(instruction: str | None) -> str | None:
    if instruction is not None:
        require_texts([instruction], "instruction")
        if not instruction.strip():
            raise InvalidInputError(f"instruction is {instruction!r}; expected some text, or None")
    return instruction


def _cut(
    loaded: LoadedCrossEncoder, pairs: Sequence[Pair], counts: Sequence[int], limit: int, instruction: str | None
) -> list[PairCut]:
    """Return what is cut of each of `pairs`; `counts` are their tokens, markers included."""
    return [loaded.cut(query, count, limit, instruction) for (query, _), count in zip(pairs, counts, strict=True)]


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
