"""How long, how fast and how reproducibly a model is fitted: what both kinds have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_integrations.errors import InvalidInputError
from rerank_integrations.training.folder import FitFolder


@dataclass(frozen=True)
class Fitting:
    """The settings of a fit.

    Parameters
    ----------
    steps, batch_size
        Steps of the optimiser (AdamW), queries a step.
    learning_rate
        Of the encoder, at its height: it rises over the first tenth and falls linearly to 0.
    head_learning_rate
        Of the projection or the head.
    negatives
        Hard negatives a query.
    max_length
        Of a passage (ColBERT) or a pair (cross-encoder), in tokens, while training.
    seed
        Of order, negatives and dropout.
    save_steps
        A checkpoint is kept after so many steps, from which a fit that was stopped goes on.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-4
    negatives: int = 2
    max_length: int = 256
    seed: int = 0
    save_steps: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "negatives", "max_length", "save_steps"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number above 0")
        if type(self.seed) is not int or self.seed < 0:
            raise InvalidInputError(f"seed is {self.seed!r}; expected a whole number of at least 0")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise InvalidInputError(f"{name} is {value!r}; expected a number between 0 and 1")


def freeze(model: Any, *names: str) -> None:
    """Leave the parameters whose names hold one of `names` as they are."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.requires_grad_(False)


def without_dropout(model: Any) -> None:
    """Switch dropout off: on a CPU drawing it takes longer than all the rest, and short fits do not need it."""
    from torch.nn import Dropout

    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0


def head_parameters(model: Any) -> list[str]:
    """Return the names of the parameters outside the encoder: a projection, a classifier."""
    encoder = getattr(model[0].model, "base_model_prefix", "")
    # A bare encoder has that name too, but no part of that name.
    inside = f"0.model.{encoder}." if hasattr(model[0].model, encoder) else "0."
    return [name for name, _ in model.named_parameters() if not name.startswith(inside)]


def training_arguments(kind: type, model: Any, fitting: Fitting, folder: Path) -> Any:
    """Return the arguments of a sentence-transformers trainer, of the class `kind`."""
    from rerank_integrations.core.models.checkpoints.options import resolve_device, resolve_dtype

    device = resolve_device(None)
    # The loss stands around the model, so its names are longer in front.
    heads = "|".join(rf"(^|\.){re.escape(name)}$" for name in head_parameters(model))
    return kind(
        output_dir=str(folder),
        max_steps=fitting.steps,
        per_device_train_batch_size=fitting.batch_size,
        learning_rate=fitting.learning_rate,
        learning_rate_mapping={heads: fitting.head_learning_rate} if heads else {},
        weight_decay=0.01,
        warmup_steps=max(1, fitting.steps // 10),
        lr_scheduler_type="linear",
        # Mixed: the weights stay in float32.
        bf16=str(resolve_dtype("auto", device)) == "torch.bfloat16",
        use_cpu=device == "cpu",
        seed=fitting.seed,
        batch_sampler="no_duplicates",
        multi_dataset_batch_sampler="proportional",
        save_steps=fitting.save_steps,
        save_total_limit=1,
        logging_steps=20,
        report_to=[],
        dataloader_pin_memory=device != "cpu",
    )


def fit(trainer: Any, folder: FitFolder) -> None:
    """Train, from the newest checkpoint in `folder` if there is one."""
    from rerank_integrations.training.progress import show_progress

    show_progress(trainer)
    newest = folder.newest_checkpoint()
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
