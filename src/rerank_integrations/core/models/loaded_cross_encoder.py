"""A loaded cross-encoder: token counts and logits; safe under threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rerank_integrations.core.concurrency.cancel import check_wanted
from rerank_integrations.core.concurrency.cores import in_parallel, on_compute_thread, side_by_side
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.files import (
    fresh_parameters,
    read_json,
    require_checkpoint,
    require_filled,
    require_reranker,
)
from rerank_integrations.core.models.checkpoints.hub import hub_arguments
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.graphs import Features, serve_as_graph
from rerank_integrations.core.models.lengths import UNLIMITED, PairCut, pair_cut, text_room
from rerank_integrations.core.models.loading import (
    COUNT_AT_ONCE,
    load_guarded,
    position_limit,
    require_tokenizer,
    st_kwargs,
    token_spans,
    usable_device,
    weights_of,
)
from rerank_integrations.core.types import ScoreScale
from rerank_integrations.errors import CheckpointError, InvalidInputError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from torch import nn
    from transformers import BatchEncoding

# Returned as lists, whole: for counting.
_UNCUT: dict[str, dict[str, object]] = {
    "common": {"return_tensors": None},
    "text": {"padding": False, "truncation": False, "max_length": None, "verbose": False},
}


class PairReader:
    """What a `sentence_transformers.CrossEncoder` makes of (query, text) pairs before it computes.

    Encoders join the two by separators, language models fill them into a chat template. Either is done by the
    checkpoint's first module, with the prompt that it names as its default. Not safe under threads: the tokenizer is
    one, and truncation and padding are its state.
    """

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model
        name = model.default_prompt_name
        self._prompt = None if name is None else model.prompts.get(name)
        self.fixed = self.count([("", "")])[0]
        """Tokens of a pair of empty texts: separators, or prompt and template."""
        # A template is cut at its end, which is the text's; two sides with separators, each at its own.
        self._longest_first = self.fixed == model.tokenizer.num_special_tokens_to_add(pair=True)

    def count(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Return each pair's length in tokens before any cut, prompt and template included."""
        return [len(ids) for ids in self._preprocess(pairs, _UNCUT)["input_ids"]] if pairs else []

    def query_room(self, limit: int) -> int:
        """Return how many tokens of a pair cut to `limit` a query may take: three quarters of what both have."""
        return max(limit - self.fixed, 0) * 3 // 4

    def cut(self, query: str, count: int, limit: int) -> PairCut:
        """Return what is cut of a pair of `count` tokens with `query`, where `limit` are read."""
        alone = len(self._query_tokens(query)["input_ids"])
        text = count - self.fixed - alone
        share = min(alone, self.query_room(limit))
        if not self._longest_first:
            return PairCut(share < alone, share + text > limit - self.fixed)
        cut = pair_cut(share, text, limit - self.fixed)
        return PairCut(cut.query or share < alone, cut.text)

    def text_room(self, query: str, limit: int) -> int:
        """Return how many tokens of any text are read whole beside `query`, itself cut if need be."""
        share = min(len(self._query_tokens(query)["input_ids"]), self.query_room(limit))
        room = limit - self.fixed
        return text_room(share, room) if self._longest_first else max(1, room - share)

    def is_over_its_share(self, query: str, limit: int) -> bool:
        """Whether `query` is longer than `query_room` allows."""
        return len(self._query_tokens(query)["input_ids"]) > self.query_room(limit)

    def read(self, pairs: list[tuple[str, str]], limit: int) -> Features:
        """Return the features of the pairs, cut to `limit` tokens; the end of a template is never cut."""
        fitted = self._with_room_for_texts(pairs, limit)
        if not self.fixed:
            # With nothing around them two empty texts have no token, and there would be nothing to compute.
            fitted = [(query, text or ("" if query else " ")) for query, text in fitted]
        return self._preprocess(fitted, {"text": {"max_length": limit}})

    def _preprocess(self, pairs: list[tuple[str, str]], processing: Mapping[str, Mapping[str, object]]) -> Features:
        features: Features = self._model.preprocess(pairs, prompt=self._prompt, processing_kwargs=processing)
        return features

    def _with_room_for_texts(self, pairs: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
        # A template is cut at its end, where the text stands: a long query would leave nothing of it.
        long = {query for query in {query for query, _ in pairs} if self.is_over_its_share(query, limit)}
        if not long:
            return pairs
        beginnings = {query: self._beginning(query, self.query_room(limit)) for query in long}
        return [
            (beginnings[query] if query in long and count > limit else query, text)
            for (query, text), count in zip(pairs, self.count(pairs), strict=True)
        ]

    def _beginning(self, query: str, tokens: int) -> str:
        encoded = self._query_tokens(query)
        if "offset_mapping" in encoded:
            return query[: encoded["offset_mapping"][tokens][0]]
        kept: str = self._model.tokenizer.decode(encoded["input_ids"][:tokens])
        return kept

    def _query_tokens(self, query: str) -> BatchEncoding:
        tokenizer = self._model.tokenizer
        encoded: BatchEncoding = tokenizer(
            query,
            add_special_tokens=False,
            truncation=False,
            padding=False,
            verbose=False,
            return_offsets_mapping=tokenizer.is_fast,
        )
        return encoded


# How a checkpoint that was trained from the starter cross-encoder names its head.
_OWN_HEAD = "rerank_integrations.starter.joint_maxsim.JointMaxSim"


class LoadedPairScorer:
    """A `sentence_transformers.CrossEncoder` whose tokenizer only one thread uses at a time."""

    def __init__(self, options: LoadOptions) -> None:
        require_checkpoint(options)
        self._device = usable_device(options)
        self._model = load_guarded(options, lambda: load_pair_model(options, self._device))
        if not options.is_starter:
            _require_trained_single_label(options, self._model)
        require_tokenizer(options, self._model.tokenizer)
        transformer = cast("Transformer", self._model[0])
        self._positions = position_limit(transformer)
        # Reads a pair of empty texts: a chat template that has no place for query and passage is refused here.
        self._reader: PairReader = load_guarded(options, lambda: PairReader(self._model))
        self._name = options.name_or_path
        self.converted_path: Path | None = None
        if options.is_graph:
            self.converted_path = serve_as_graph(options, "cross-encoder", transformer, self._paired)
        self.weights = weights_of(self._model, self.converted_path, options)
        # Truncation and padding are state of the one fast tokenizer.
        self._tokenizer_lock = threading.RLock()

    def _paired(self, texts: list[str]) -> list[Features]:
        return [self._model.preprocess([(texts[0], text) for text in texts])]

    def limit(self, length: int | None) -> int:
        """Return how many tokens of a pair are read: `length`, at most the checkpoint's own."""
        # A tokenizer that knows no limit says 1e30, which tokenizers cannot take.
        known = [number for number in (length, self._model.max_seq_length, self._positions) if number]
        limit = int(min([*known, UNLIMITED])) if known else 512
        if limit <= self._reader.fixed:
            raise InvalidInputError(
                f"max_length is {length}; expected more than {self._reader.fixed}, the tokens that "
                f"{self._name!r} puts around query and passage"
            )
        return limit

    def count_tokens(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Return each pair's length in tokens before any cut, prompt and template included."""
        counts: list[int] = []
        for start in range(0, len(pairs), COUNT_AT_ONCE):
            with forks_held_off(), self._tokenizer_lock:
                counts += self._reader.count(pairs[start : start + COUNT_AT_ONCE])
        return counts

    def cut(self, query: str, count: int, limit: int) -> PairCut:
        """Return what is cut of a pair of `count` tokens with `query`, if `limit` tokens are read."""
        if count <= limit:
            return PairCut(False, False)
        with forks_held_off(), self._tokenizer_lock:
            return self._reader.cut(query, count, limit)

    def text_room(self, query: str, limit: int) -> int:
        """Return how many tokens of any text are read whole beside `query`, which is cut for it if need be."""
        with forks_held_off(), self._tokenizer_lock:
            return self._reader.text_room(query, limit)

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, before any cut."""
        return token_spans(self._model.tokenizer, self._tokenizer_lock, texts)

    @property
    def side_by_side(self) -> int:
        """How many batches are computed at once."""
        return side_by_side() if self._device == "cpu" else 1

    def logits(self, batches: list[list[tuple[str, str]]], limit: int) -> Iterator[list[float]]:
        """Yield the logits of each batch of pairs, in order."""
        works = (self._work(pairs, limit) for pairs in batches)
        if self.side_by_side > 1 and len(batches) > 1:
            return in_parallel(works)
        return (on_compute_thread("document", work) for work in works)

    def _work(self, pairs: list[tuple[str, str]], limit: int) -> Callable[[], list[float]]:
        check_wanted()
        with forks_held_off(), self._tokenizer_lock:
            features = self._reader.read(pairs, limit)
        return lambda: self._compute(features)

    def _compute(self, features: Features) -> list[float]:
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            scores = self._model(batch_to_device(features, torch.device(self._device)))["scores"]
            return [float(score) for score in scores.float().cpu().flatten()]

    @property
    def scale(self) -> ScoreScale:
        """The scale of the checkpoint's own activation."""
        from torch import nn

        known: dict[type[object], ScoreScale] = {nn.Sigmoid: "probability", nn.Identity: "logit"}
        return known.get(type(self._model.activation_fn), "own")

    def activate(self, logits: list[float]) -> list[float]:
        """Apply the activation that the checkpoint asks for."""
        import torch

        activation = cast("Callable[[torch.Tensor], torch.Tensor]", self._model.activation_fn)
        with torch.inference_mode():
            return [float(score) for score in activation(torch.tensor(logits))]


def load_pair_model(options: LoadOptions, device: str) -> CrossEncoder:
    """Load a checkpoint as a `sentence_transformers.CrossEncoder`, in evaluation mode."""
    from sentence_transformers import CrossEncoder

    if options.is_starter:
        from rerank_integrations import starter

        model = CrossEncoder(
            modules=starter.cross_encoder_modules(model_kwargs=dict(options.model_kwargs or {})), device=device
        )
        return in_dtype(model, options.resolved_dtype())
    require_checkpoint(options)
    require_reranker(options)
    head = next((module for module in read_json(options, "modules.json") if module.get("type") == _OWN_HEAD), None)
    if head is None:
        model = CrossEncoder(options.name_or_path, device=device, **st_kwargs(options))
    else:
        model = CrossEncoder(modules=_own_modules(options, head["path"]), device=device)
    return in_dtype(model, options.resolved_dtype())


def _own_modules(options: LoadOptions, head_path: str) -> list[nn.Module]:
    # One by one: sentence-transformers imports a class outside itself only where any code may be run.
    from rerank_integrations.starter.joint_maxsim import JointMaxSim
    from rerank_integrations.starter.joint_transformer import JointTransformer

    transformer = JointTransformer.load(
        options.name_or_path,
        trust_remote_code=options.trust_remote_code,
        model_kwargs=dict(options.model_kwargs or {}),
        **hub_arguments(options),
    )
    return [transformer, JointMaxSim.load(options.name_or_path, subfolder=head_path, **hub_arguments(options))]


def _require_trained_single_label(options: LoadOptions, model: CrossEncoder) -> None:
    inner = getattr(model, "model", None)
    fresh = fresh_parameters(options, inner) if inner is not None else []
    require_filled(options, fresh)
    if model.num_labels != 1:
        raise CheckpointError(
            f"the head of {options.name_or_path!r} has {model.num_labels} labels; expected 1, the relevance score"
        )


# A linear layer of at most so many outputs gives the scores themselves, which bfloat16 would leave three digits.
_MAX_SCORE_OUTPUTS = 8


def in_dtype(model: CrossEncoder, dtype: torch.dtype) -> CrossEncoder:
    """Put a `sentence_transformers.CrossEncoder` into `dtype` and evaluation mode, and return it.

    In bfloat16 the encoder holds its linear layers and embeddings in that format and multiplies matrices in it; sums,
    norms, the layer that gives the score and all modules after the encoder are in float32. On a CPU that is as fast as
    bfloat16 throughout, and the starter's logits are seven times as near to those of float32.
    """
    import torch
    from torch import nn

    if dtype is not torch.bfloat16:
        model.to(dtype)
        return model.eval()
    model.float()
    encoder = model[0]
    for module in encoder.modules():
        if isinstance(module, nn.Embedding):
            module.to(dtype).register_forward_hook(_to_float32)
        elif isinstance(module, nn.Linear):
            if module.out_features <= _MAX_SCORE_OUTPUTS:
                _compute_in_float32(module)
            else:
                module.to(dtype)
    _multiply_in(dtype, encoder)
    return model.eval()


def _to_float32(module: nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _compute_in_float32(module: nn.Linear) -> None:
    import torch

    plain = module.forward

    def forward(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return plain(rows.float())

    module.forward = forward  # type: ignore[method-assign, assignment]


def _multiply_in(dtype: torch.dtype, encoder: nn.Module) -> None:
    import torch

    plain = encoder.forward

    def forward(features: Features, **options: object) -> Features:
        with torch.autocast(features["input_ids"].device.type, dtype=dtype):
            output: Features = plain(features, **options)
        return {name: value.float() if _is(value, dtype) else value for name, value in output.items()}

    encoder.forward = forward


def _is(value: object, dtype: torch.dtype) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype is dtype
