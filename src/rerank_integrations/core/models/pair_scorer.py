"""A loaded cross-encoder: token counts and logits; safe under threads."""

from __future__ import annotations

from typing import Any

from rerank_integrations.core.models.checkpoint import find_file, fresh_parameters, read_json, require_filled
from rerank_integrations.core.models.compute import on_compute_thread
from rerank_integrations.core.models.forking import fork_safe_lock
from rerank_integrations.core.models.loading import (
    load_guarded,
    position_limit,
    require_tokenizer,
    st_kwargs,
)
from rerank_integrations.core.models.memory import weights_of
from rerank_integrations.core.models.options import LoadOptions, resolve_device, resolve_dtype
from rerank_integrations.errors import CheckpointError

# How a checkpoint that was trained from the starter cross-encoder names its head.
_OWN_HEAD = "rerank_integrations.starter.joint_maxsim.JointMaxSim"


class LoadedPairScorer:
    """A `sentence_transformers.CrossEncoder` whose tokenizer only one thread uses at a time."""

    def __init__(self, options: LoadOptions) -> None:
        self._device: Any = resolve_device(options.device)
        self._model = load_guarded(options, lambda: load_pair_model(options, self._device))
        if not options.is_starter:
            _require_trained_single_label(options, self._model)
        require_tokenizer(options, self._model.tokenizer)
        self.weights = weights_of(self._model, options)
        self._positions = position_limit(self._model[0])
        # Truncation and padding are state of the one fast tokenizer.
        self._tokenizer_lock = fork_safe_lock()

    def limit(self, length: int | None) -> int:
        """Return how many tokens of a pair are read: `length`, or else the checkpoint's own."""
        known = [number for number in (length, self._model.max_seq_length, self._positions) if number]
        return int(min(known)) if known else 512

    def count_tokens(self, query: str, texts: list[str]) -> list[int]:
        """Return each pair's length in tokens before any cut."""
        with self._tokenizer_lock:
            encoded = self._model.tokenizer([query] * len(texts), texts, truncation=False, padding=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def logits(self, query: str, texts: list[str], limit: int) -> list[float]:
        """Return the logit of each pair of one batch."""
        with self._tokenizer_lock:
            features = self._model.preprocess(
                [(query, text) for text in texts], processing_kwargs={"text": {"max_length": limit}}
            )
        return on_compute_thread("document", lambda: self._compute(features))

    def _compute(self, features: dict[str, Any]) -> list[float]:
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            scores = self._model(batch_to_device(features, self._device))["scores"]
            return [float(score) for score in scores.float().cpu().flatten()]

    def activate(self, logits: list[float]) -> list[float]:
        """Apply the activation that the checkpoint asks for."""
        import torch

        with torch.inference_mode():
            return [float(score) for score in self._model.activation_fn(torch.tensor(logits))]


def load_pair_model(options: LoadOptions, device: str) -> Any:
    """Load a checkpoint as a `sentence_transformers.CrossEncoder`, in evaluation mode."""
    from sentence_transformers import CrossEncoder

    if options.is_starter:
        from rerank_integrations import starter

        model = CrossEncoder(
            modules=starter.cross_encoder_modules(model_kwargs=dict(options.model_kwargs or {})), device=device
        )
        return model.to(resolve_dtype(options.dtype, device)).eval()
    if find_file(options, "config.json") is None and find_file(options, "modules.json") is None:
        raise CheckpointError(
            f"no checkpoint at {options.name_or_path!r}: neither config.json nor modules.json was found; "
            "expected a local directory or the name of a model on the hub"
        )
    head = next((module for module in read_json(options, "modules.json") if module.get("type") == _OWN_HEAD), None)
    if head is None:
        model = CrossEncoder(options.name_or_path, device=device, **st_kwargs(options))
    else:
        model = CrossEncoder(modules=_own_modules(options, head["path"]), device=device)
    if options.backend == "torch":
        model = model.to(resolve_dtype(options.dtype, device))
    return model.eval()


def _own_modules(options: LoadOptions, head_path: str) -> list[Any]:
    # One by one: sentence-transformers imports a class outside itself only where any code may be run.
    from rerank_integrations.starter.joint_maxsim import JointMaxSim
    from rerank_integrations.starter.joint_transformer import JointTransformer

    transformer = JointTransformer.load(
        options.name_or_path,
        trust_remote_code=options.trust_remote_code,
        model_kwargs=dict(options.model_kwargs or {}),
        **options.hub_kwargs(),
    )
    return [transformer, JointMaxSim.load(options.name_or_path, subfolder=head_path, **options.hub_kwargs())]


def _require_trained_single_label(options: LoadOptions, model: Any) -> None:
    inner = getattr(model, "model", None)
    fresh = fresh_parameters(options, inner) if options.backend == "torch" and inner is not None else []
    require_filled(options, fresh)
    if model.num_labels != 1:
        raise CheckpointError(
            f"the head of {options.name_or_path!r} has {model.num_labels} labels; expected 1, the relevance score"
        )
