"""A loaded cross-encoder: token counts and logits; safe under threads."""

from __future__ import annotations

import functools
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
from rerank_integrations.core.types import CrossEncoderScale
from rerank_integrations.errors import CheckpointError, InvalidInputError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from torch import nn
    from transformers import BatchEncoding

# Arguments for counting tokens: whole texts, as lists.
_UNCUT: dict[str, dict[str, object]] = {
    "common": {"return_tensors": None},
    "text": {"padding": False, "truncation": False, "max_length": None, "verbose": False},
}


class PairTokenizer:
    """Tokenize (query, text) pairs as the first module of a `sentence_transformers.CrossEncoder` does.

    Encoders join the two with separators, language models fill them into a chat template, with `instruction`, or else
    the checkpoint's default prompt. This class is not safe under threads: truncation and padding are state of the
    shared tokenizer.
    """

    def __init__(self, model: CrossEncoder, instruction: str | None = None) -> None:
        self._model = model
        name = model.default_prompt_name
        self._prompt = None if name is None else model.prompts.get(name)
        if instruction is not None:
            self._prompt = instruction
        self.fixed: int = self.count([("", "")])[0]
        """The number of tokens of a pair of empty texts: separators, or prompt and template."""
        # A template is cut at the end of the text; sides with separators are cut at the end of each.
        self._longest_first = self.fixed == model.tokenizer.num_special_tokens_to_add(pair=True)

    @property
    def reads_instruction(self) -> bool:
        """Whether the instruction is part of the question that the template asks."""
        # Not compared with none at all, for which a template may have this very text as its default.
        prompts = (None, self._prompt, f"{self._prompt} {self._prompt}")
        none, once, twice = (
            self._model.preprocess([("", "")], prompt=prompt, processing_kwargs=_UNCUT)["input_ids"][0]
            for prompt in prompts
        )
        # Without a template it would be text before the query, which no such model was trained with.
        has_template = len(none) != self._model.tokenizer.num_special_tokens_to_add(pair=True)
        return has_template and bool(once != twice)

    def count(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Return each pair's length in tokens before any cut, prompt and template included."""
        return [len(ids) for ids in self._preprocess(pairs, _UNCUT)["input_ids"]] if pairs else []

    def query_room(self, limit: int) -> int:
        """Return how many tokens a query may take of a pair cut to `limit`: three quarters of those of both texts."""
        return max(limit - self.fixed, 0) * 3 // 4

    def cut(self, query: str, count: int, limit: int) -> PairCut:
        """Return the sides that are cut of a pair of `count` tokens with `query`, where `limit` are read."""
        length = len(self._query_tokens(query)["input_ids"])
        text = count - self.fixed - length
        share = min(length, self.query_room(limit))
        if not self._longest_first:
            return PairCut(share < length, share + text > limit - self.fixed)
        cut = pair_cut(share, text, limit - self.fixed)
        return PairCut(cut.query or share < length, cut.text)

    def text_room(self, query: str, limit: int) -> int:
        """Return the text length that is never cut beside `query`, itself cut if need be."""
        share = min(len(self._query_tokens(query)["input_ids"]), self.query_room(limit))
        room = limit - self.fixed
        return text_room(share, room) if self._longest_first else max(1, room - share)

    def exceeds_query_room(self, query: str, limit: int) -> bool:
        """Return True if `query` is longer than `query_room` allows."""
        return len(self._query_tokens(query)["input_ids"]) > self.query_room(limit)

    def tokenize(self, pairs: list[tuple[str, str]], limit: int) -> Features:
        """Return the features of the pairs, cut to `limit` tokens; the end of a template is never cut."""
        fitted = self._with_room_for_texts(pairs, limit)
        if not self.fixed:
            # Without separators two empty texts have no token, and there would be nothing to compute.
            fitted = [(query, text or ("" if query else " ")) for query, text in fitted]
        return self._preprocess(fitted, {"text": {"max_length": limit}})

    def _preprocess(self, pairs: list[tuple[str, str]], processing: Mapping[str, Mapping[str, object]]) -> Features:
        features: Features = self._model.preprocess(pairs, prompt=self._prompt, processing_kwargs=processing)
        return features

    def _with_room_for_texts(self, pairs: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
        # A template is cut at its end, where the text is: a long query would leave nothing of the text.
        long_queries = {query for query in {query for query, _ in pairs} if self.exceeds_query_room(query, limit)}
        if not long_queries:
            return pairs
        beginnings = {query: self._beginning(query, self.query_room(limit)) for query in long_queries}
        return [
            (beginnings[query] if query in long_queries and count > limit else query, text)
            for (query, text), count in zip(pairs, self.count(pairs), strict=True)
        ]

    def _beginning(self, query: str, tokens: int) -> str:
        encoded = self._query_tokens(query)
        if "offset_mapping" in encoded:
            return query[: encoded["offset_mapping"][tokens][0]]
        beginning: str = self._model.tokenizer.decode(encoded["input_ids"][:tokens])
        return beginning

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


# Each has a small object of its own; a service may have one instruction per user.
_MAX_INSTRUCTIONS = 64


def _pair_tokenizer(name: str, model: CrossEncoder, instruction: str | None) -> PairTokenizer:
    tokenizer = PairTokenizer(model, instruction)
    if instruction is not None and not tokenizer.reads_instruction:
        raise InvalidInputError(
            f"instruction is {instruction!r} with {name!r}, which does not read one; expected a language model whose "
            "chat template has a place for a system message, or None"
        )
    return tokenizer


# The head's name in checkpoints that were trained from the starter cross-encoder.
_STARTER_HEAD = "rerank_integrations.starter.joint_maxsim.JointMaxSim"


class LoadedCrossEncoder:
    """A `sentence_transformers.CrossEncoder` that is safe under threads: one at a time uses the tokenizer."""

    def __init__(self, options: LoadOptions) -> None:
        require_checkpoint(options)
        self._device = usable_device(options)
        self._model = load_guarded(options, lambda: load_pair_model(options, self._device))
        if not options.is_starter:
            _require_trained_single_label(options, self._model)
        require_tokenizer(options, self._model.tokenizer)
        transformer = cast("Transformer", self._model[0])
        self._positions = position_limit(transformer)
        # Truncation and padding are state of the shared fast tokenizer.
        self._tokenizer_lock = threading.RLock()
        # Of the model alone, not of this object: a cycle would hold an unloaded copy's memory until it is collected.
        self._tokenizer = functools.lru_cache(maxsize=_MAX_INSTRUCTIONS)(
            functools.partial(_pair_tokenizer, options.name_or_path, self._model)
        )
        # This tokenizes a pair of empty texts: a chat template without a slot for query and passage fails here.
        load_guarded(options, lambda: self._tokenizer(None))
        self._name = options.name_or_path
        self.converted_path: Path | None = None
        if options.is_graph:
            self.converted_path = serve_as_graph(options, "cross-encoder", transformer, self._preprocess_pairs)
        self.weights: Weights = weights_of(self._model, self.converted_path, options)

    def _preprocess_pairs(self, texts: list[str]) -> list[Features]:
        return [self._model.preprocess([(texts[0], text) for text in texts])]

    def limit(self, length: int | None, instruction: str | None = None) -> int:
        """Return how many tokens of a pair are read: `length`, at most the checkpoint's own."""
        # A tokenizer without a limit reports 1e30, which tokenizers do not accept.
        known = [number for number in (length, self._model.max_seq_length, self._positions) if number]
        limit = int(min([*known, UNLIMITED])) if known else 512
        with forks_held_off(), self._tokenizer_lock:
            fixed = self._tokenizer(instruction).fixed
        if limit <= fixed:
            raise InvalidInputError(
                f"max_length is {length}; expected more than {fixed}, the tokens that "
                f"{self._name!r} puts around query and passage"
            )
        return limit

    def count_tokens(self, pairs: list[tuple[str, str]], instruction: str | None = None) -> list[int]:
        """Return each pair's length in tokens before any cut, prompt and template included."""
        counts: list[int] = []
        for start in range(0, len(pairs), TEXTS_PER_TOKENIZER_CALL):
            with forks_held_off(), self._tokenizer_lock:
                counts += self._tokenizer(instruction).count(pairs[start : start + TEXTS_PER_TOKENIZER_CALL])
        return counts

    def cut(self, query: str, count: int, limit: int, instruction: str | None = None) -> PairCut:
        """Return the sides that are cut of a pair of `count` tokens with `query`, where `limit` are read."""
        if count <= limit:
            return PairCut(False, False)
        with forks_held_off(), self._tokenizer_lock:
            return self._tokenizer(instruction).cut(query, count, limit)

    def text_room(self, query: str, limit: int, instruction: str | None = None) -> int:
        """Return the text length that is never cut beside `query`, which is cut for it if need be."""
        with forks_held_off(), self._tokenizer_lock:
            return self._tokenizer(instruction).text_room(query, limit)

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Return the character span of each token of each text, before any cut."""
        return token_spans(self._model.tokenizer, self._tokenizer_lock, texts)

    @property
    def side_by_side(self) -> int:
        """The number of batches that are computed at the same time."""
        return side_by_side() if self._device == "cpu" else 1

    def logits(
        self, batches: list[list[tuple[str, str]]], limit: int, instruction: str | None = None
    ) -> Iterator[list[float]]:
        """Yield the logits of each batch of pairs, in order."""
        tasks = (self._task(pairs, limit, instruction) for pairs in batches)
        if self.side_by_side > 1 and len(batches) > 1:
            return in_parallel(tasks)
        return (on_compute_thread("document", task) for task in tasks)

    def _task(self, pairs: list[tuple[str, str]], limit: int, instruction: str | None) -> Callable[[], list[float]]:
        check_wanted()
        with forks_held_off(), self._tokenizer_lock:
            features = self._tokenizer(instruction).tokenize(pairs, limit)
        return lambda: self._compute(features)

    def _compute(self, features: Features) -> list[float]:
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            scores = self._model(batch_to_device(features, torch.device(self._device)))["scores"]
            return [float(score) for score in scores.float().cpu().flatten()]

    @property
    def scale(self) -> CrossEncoderScale:
        """The scale of the checkpoint's own activation."""
        from torch import nn

        known: dict[type[object], CrossEncoderScale] = {nn.Sigmoid: "probability", nn.Identity: "logit"}
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
    head = next((module for module in read_json(options, "modules.json") if module.get("type") == _STARTER_HEAD), None)
    if head is None:
        model = CrossEncoder(options.name_or_path, device=device, **st_kwargs(options))
    else:
        model = CrossEncoder(modules=_starter_modules(options, head["path"]), device=device)
    return in_dtype(model, options.resolved_dtype())


def _starter_modules(options: LoadOptions, head_path: str) -> list[nn.Module]:
    # Loaded one by one: sentence-transformers imports classes of other packages only with trust_remote_code.
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

    With bfloat16 the encoder's linear layers and embeddings are in that format, and matrices are multiplied in it.
    Sums, norms, the layer that gives the score and all modules after the encoder are in float32. On a CPU that is as
    fast as bfloat16 throughout, and the starter's logits are seven times closer to those of float32.
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

    original = module.forward

    def forward(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            return original(rows.float())

    module.forward = forward  # type: ignore[method-assign, assignment]


def _multiply_in(dtype: torch.dtype, encoder: nn.Module) -> None:
    import torch

    original = encoder.forward

    def forward(features: Features, **options: object) -> Features:
        with torch.autocast(features["input_ids"].device.type, dtype=dtype):
            output: Features = original(features, **options)
        return {name: value.float() if _is(value, dtype) else value for name, value in output.items()}

    encoder.forward = forward


def _is(value: object, dtype: torch.dtype) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype is dtype
