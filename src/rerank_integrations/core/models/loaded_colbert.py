"""A loaded multi-vector encoder: token counts, token vectors, character spans; safe under threads."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.concurrency.cores import in_parallel, lane_for, on_compute_thread, side_by_side
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models.checkpoints.files import (
    is_bge_m3,
    read_json,
    require_checkpoint,
    require_filled,
    require_multi_vector,
    unloaded_parameters,
)
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.graphs import Features, serve_as_graph
from rerank_integrations.core.models.loading import (
    TEXTS_PER_TOKENIZER_CALL,
    load_guarded,
    position_limit,
    require_tokenizer,
    st_kwargs,
    token_spans,
    usable_device,
    weights_of,
)
from rerank_integrations.core.models.pool import Weights
from rerank_integrations.errors import CheckpointError

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.base.modules.transformer import QueryExpansionConfig
    from torch import Tensor
    from transformers import PreTrainedModel

Task: TypeAlias = Literal["query", "document"]


class EncodedText(NamedTuple):
    """The tokens of one text that have vectors.

    `vectors` are float32 unit rows, *Shape:* (tokens, dim); `tokens` as the tokenizer writes them; `spans` in
    characters of the text, (0, 0) for markers; `read_to` is the character at which a truncated text ends.
    """

    vectors: Floats
    tokens: list[str]
    spans: list[tuple[int, int]]
    read_to: int | None


class LoadedColBERT:
    """A `sentence_transformers.MultiVectorEncoder` that is safe under threads: one at a time uses the tokenizer."""

    def __init__(self, options: LoadOptions) -> None:
        require_checkpoint(options)
        self._device = usable_device(options)
        self._model = load_guarded(options, lambda: load_multi_vector(options, self._device))
        self._before_pooling = _without_pooling(self._model)
        require_tokenizer(options, self._model.tokenizer)
        self._transformer = cast("Transformer", self._model[0])
        # A query expansion that the checkpoint's chat template forbids fails here, not at the first query.
        load_guarded(options, lambda: self._model.preprocess([""], task="query"))
        if not options.is_starter:
            # A pooler gives a vector for the whole text, which MaxSim does not use: it may be absent.
            fresh = unloaded_parameters(self._transformer.auto_model) or []
            require_filled(options, [name for name in fresh if "pooler" not in name])
        self._positions = position_limit(self._transformer)
        # The checkpoint's own lengths: while a batch is tokenized the transformer has the caller's.
        self._query_length = self._transformer.query_length
        self._document_length = self._transformer.document_length
        self._expansion = self._transformer.query_expansion
        # Truncation and padding are state of the shared fast tokenizer: without this lock four threads cut documents
        # to the query's length (sentence-transformers 6.2).
        self._tokenizer_lock = threading.RLock()
        self.dim: int = _dimension(options, self._model)
        self._multiplied = multiplied_weights(self._transformer.auto_model)
        self.converted_path: Path | None = None
        if options.is_graph:
            self.converted_path = serve_as_graph(options, "colbert", self._transformer, self._preprocess_both_ways)
        self.weights: Weights = weights_of(self._model, self.converted_path, options)

    def _preprocess_both_ways(self, texts: list[str]) -> list[Features]:
        return [self._model.preprocess(texts, task=task) for task in ("document", "query")]

    @property
    def pools(self) -> bool:
        """Whether the checkpoint's last modules merge token vectors, so that a vector is not of one token."""
        return self._before_pooling is not self._model

    def prompt(self, task: Task) -> str:
        """Return the checkpoint's marker and prompt before every text."""
        prompts = self._model.prompts
        names = ("query",) if task == "query" else ("document", "passage", "corpus")
        return next((prompts[name] for name in names if prompts.get(name)), None) or ""

    def limit(self, task: Task, length: int | None) -> int:
        """Return how many tokens, markers included, are read: `length`, or else the checkpoint's own."""
        if length is None and task == "document":
            length = self._document_length
        elif length is None:
            length = self._query_length
            if self._expansion is not None and self._expansion["strategy"] == "fixed":
                length = self._expansion["length"]
        # The task's length comes first: PyLate checkpoints have the max_seq_length of their last call, often a query's.
        known = [number for number in (length or self._transformer.max_seq_length, self._positions) if number]
        return int(min(known)) if known else 512

    def count_tokens(self, texts: list[str], task: Task) -> list[int]:
        """Return each text's length in tokens, markers included, before any cut."""
        prompt = self.prompt(task)
        counts: list[int] = []
        for start in range(0, len(texts), TEXTS_PER_TOKENIZER_CALL):
            chunk = [prompt + text for text in texts[start : start + TEXTS_PER_TOKENIZER_CALL]]
            with forks_held_off(), self._tokenizer_lock:
                encoded = self._model.tokenizer(chunk, truncation=False, padding=False, verbose=False)
            counts += [len(ids) for ids in encoded["input_ids"]]
        return counts

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, before any cut."""
        return token_spans(self._model.tokenizer, self._tokenizer_lock, texts)

    def side_by_side(self, task: Task) -> int:
        """Return how many batches are computed at the same time; a graph uses all cores for one batch."""
        return side_by_side() if task == "document" and self._device == "cpu" and self.converted_path is None else 1

    def encode(self, batches: list[list[str]], task: Task, limit: int) -> Iterator[list[Floats]]:
        """Yield each batch encoded, in order: float32 arrays of unit rows, *Shape:* (tokens, dim)."""
        tokenized = (self._tokenize(texts, task, limit) for texts in batches)
        if len(batches) > 1 and self.side_by_side(task) > 1:
            return in_parallel(functools.partial(self._rows, features, task) for features in tokenized)
        return (
            on_compute_thread(self._lane(features, task), functools.partial(self._rows, features, task))
            for features in tokenized
        )

    def encode_with_spans(self, text: str, task: Task, limit: int) -> EncodedText:
        """Encode one text, with the position in it of each token that has a vector, before any pooling of vectors."""
        features = self._tokenize([text], task, limit)
        ids = features["input_ids"].numpy()
        lane = self._lane(features, task)
        compute = functools.partial(self._compute, features, task, self._before_pooling)
        vectors, mask = on_compute_thread(lane, compute)
        keep = mask[0]
        tokens = self._model.tokenizer.convert_ids_to_tokens([int(token) for token in ids[0][keep]])
        spans = self._spans(text, task, limit)
        cut = self.count_tokens([text], task)[0] > limit
        read_to = max(end for _, end in spans) if cut else None
        spans += [(0, 0)] * (len(keep) - len(spans))
        spans = [span for span, has_vector in zip(spans, keep, strict=False) if has_vector]
        return EncodedText(_unit_rows(vectors[0][keep]), tokens, spans, read_to)

    def _spans(self, text: str, task: Task, limit: int) -> list[tuple[int, int]]:
        prompt = self.prompt(task)
        with forks_held_off(), self._tokenizer_lock:
            encoded = self._model.tokenizer(
                prompt + text, truncation=True, max_length=limit, return_offsets_mapping=True
            )
        return [_span_in(text, start - len(prompt), end - len(prompt)) for start, end in encoded["offset_mapping"]]

    def _tokenize(self, texts: list[str], task: Task, limit: int) -> Features:
        check_wanted()
        with forks_held_off(), self._tokenizer_lock, self._lengths_set(task, limit):
            features: Features = self._model.preprocess(texts, prompt=self.prompt(task) or None, task=task)
        return features

    def _lane(self, features: Features, task: Task) -> str:
        if task == "document" or self._device != "cpu":
            return task
        return lane_for(task, features["input_ids"].numel() * self._multiplied)

    def _rows(self, features: Features, task: Task) -> list[Floats]:
        vectors, mask = self._compute(features, task, self._model)
        return [_unit_rows(row[keep]) for row, keep in zip(vectors, mask, strict=True)]

    def _compute(
        self, features: Features, task: Task, model: MultiVectorEncoder
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            output = model(batch_to_device(features, torch.device(self._device)), task=task)
            vectors = output["token_embeddings"].float().cpu().numpy()
            return vectors, output["attention_mask"].bool().cpu().numpy()

    @contextlib.contextmanager
    def _lengths_set(self, task: Task, limit: int) -> Iterator[None]:
        # All callers share the transformer, and each has its own lengths: they are set only under the tokenizer's lock.
        transformer = self._transformer
        try:
            if task == "document":
                transformer.document_length = limit
            elif self._expansion is None:
                transformer.query_length = limit
            else:
                _set_expansion(transformer, self._expansion, limit)
            yield
        finally:
            transformer.query_expansion = None
            transformer.query_length = self._query_length
            transformer.document_length = self._document_length
            transformer.query_expansion = self._expansion


def _span_in(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without the blanks of prompt or text that some tokenizers include."""
    if end <= max(start, 0):
        return 0, 0
    start = max(start, 0)
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return end - len(piece.lstrip()), start + len(piece.rstrip())


def _set_expansion(transformer: Transformer, expansion: QueryExpansionConfig, limit: int) -> None:
    fixed = expansion["strategy"] == "fixed"
    # Cleared first, since the setters refuse a query length below that of the expansion.
    transformer.query_expansion = None
    transformer.query_length = None if fixed else limit
    width = limit if fixed else min(limit, expansion["length"])
    transformer.query_expansion = {**expansion, "length": width}


def load_multi_vector(options: LoadOptions, device: str) -> MultiVectorEncoder:
    """Load a checkpoint as a `sentence_transformers.MultiVectorEncoder`, in evaluation mode."""
    from sentence_transformers import MultiVectorEncoder

    if options.is_starter:
        from rerank_integrations import starter

        model = MultiVectorEncoder(
            modules=starter.colbert_modules(model_kwargs=dict(options.model_kwargs or {})), device=device
        )
    else:
        require_multi_vector(options)
        model = _load_published(options, device)
    # The projection is stored apart from the encoder: unless both are cast, they cannot be multiplied.
    model.to(options.resolved_dtype())
    return model.eval()


def _load_published(options: LoadOptions, device: str) -> MultiVectorEncoder:
    from sentence_transformers import MultiVectorEncoder

    if is_bge_m3(options):
        from rerank_integrations.core.models.checkpoints.bge_m3 import load_bge_m3

        return load_bge_m3(options, device)
    if read_json(options, "config.json").get("model_type") != "xmod":
        return MultiVectorEncoder(options.name_or_path, device=device, **st_kwargs(options))
    # The language is a setting of transformers' configuration, which takes it from no argument of loading.
    arguments = dict(options.model_kwargs or {})
    language = arguments.pop("default_language", None)
    model = MultiVectorEncoder(
        options.name_or_path, device=device, **st_kwargs(replace(options, model_kwargs=arguments))
    )
    _set_language(options, cast("Transformer", model[0]).auto_model, language)
    return model


def _set_language(options: LoadOptions, encoder: PreTrainedModel, language: object) -> None:
    """Choose the adapter of an XMOD encoder: `language`, or else the checkpoint's own default."""
    config: Any = encoder.config
    chosen = config.default_language if language is None else language
    if chosen not in config.languages:
        raise CheckpointError(
            f"the language of {options.name_or_path!r} is {chosen!r}; expected one that it has an adapter for as "
            f"model_kwargs={{'default_language': ...}}: {', '.join(config.languages)}"
        )
    config.default_language = chosen


def _without_pooling(model: MultiVectorEncoder) -> MultiVectorEncoder:
    """Return `model` itself, or a view of its modules without those that merge token vectors."""
    from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling

    if not any(isinstance(module, BaseTokenPooling) for module in model):
        return model
    view = copy.copy(model)
    modules = {name: module for name, module in model.named_children() if not isinstance(module, BaseTokenPooling)}
    # What torch reads a module's children from; the weights are shared.
    view.__dict__["_modules"] = modules
    return view


def multiplied_weights(encoder: PreTrainedModel) -> float:
    """Return how many weights each token is multiplied by: all but word embeddings; infinity if that is unknown."""
    try:
        words = encoder.get_input_embeddings()
        weights = sum(weight.numel() for weight in encoder.parameters())
    except (AttributeError, NotImplementedError):
        return math.inf
    return float(weights - (0 if words is None else cast("Tensor", words.weight).numel()))


def _dimension(options: LoadOptions, model: MultiVectorEncoder) -> int:
    dim = model.get_embedding_dimension()
    if not dim:
        raise CheckpointError(f"{options.name_or_path!r} does not tell the dimension of its token vectors")
    return int(dim)


def _unit_rows(vectors: Floats) -> Floats:
    # Normalised again in float32: after bfloat16 a row has length 1 only within 0.4 %.
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows: Floats = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return rows
