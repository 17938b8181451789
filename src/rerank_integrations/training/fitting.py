"""A fit, whatever the kind of model: its settings, its checks before the first step, and the run itself."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.checkpoints.files import reading_fingerprint
from rerank_integrations.core.models.checkpoints.options import LoadOptions, ModelKind, resolve_device, resolve_dtype
from rerank_integrations.core.models.loading import load_guarded, position_limit
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.training.folder import FitFolder
from rerank_integrations.training.pairs import Example

if TYPE_CHECKING:
    from datasets import DatasetDict
    from sentence_transformers.base.model import BaseModel
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.base.trainer import BaseTrainer
    from sentence_transformers.base.training_args import BaseTrainingArguments
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments

logger: logging.Logger = logging.getLogger(__name__)

Sources: TypeAlias = Mapping[str, Sequence[Example]]
ModelT = TypeVar("ModelT", bound="BaseModel")
ArgumentsT = TypeVar("ArgumentsT", bound="BaseTrainingArguments")


@dataclass(frozen=True)
class Fitting:
    """The settings of a fit.

    Parameters
    ----------
    steps, batch_size
        Steps of the optimiser (AdamW), and queries per step.
    learning_rate
        The highest rate of the encoder: it rises over the first tenth and falls linearly to 0.
    head_learning_rate
        The same for the projection or the head.
    negatives
        Hard negatives per query.
    max_length
        The length of a passage (ColBERT) or a pair (cross-encoder), in tokens, while training.
    seed
        For order, negatives and dropout.
    save_steps
        A checkpoint is stored after so many steps, from which an interrupted fit goes on.
    frozen_layers
        The lowest layers that stay as they are, like the embeddings: half of them take a third off a step.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-4
    negatives: int = 2
    max_length: int = 256
    seed: int = 0
    save_steps: int = 200
    frozen_layers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "negatives", "max_length", "save_steps"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number above 0")
        for name in ("seed", "frozen_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least 0")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise InvalidInputError(f"{name} is {value!r}; expected a number between 0 and 1")


@dataclass(frozen=True)
class Job(Generic[ModelT]):
    """A fit that is ready to run: a sentence-transformers model in float32, its examples, and its folder, begun."""

    model: ModelT
    dataset: DatasetDict
    folder: FitFolder


def prepare(
    kind: ModelKind,
    load: Callable[[LoadOptions, str], ModelT],
    base: str | Path,
    sources: Sources,
    out: str | Path,
    fitting: Fitting,
    *,
    teacher: ColBERTModel | None = None,
    check_only: bool = False,
) -> Job[ModelT] | None:
    """Return the fit, after every check that can refuse it.

    ``None`` if it is finished already, or with `check_only`, which writes nothing.

    Parameters
    ----------
    load
        Returns the model for a specification and a device.
    base, sources, out, fitting, teacher
        As for `train_cross_encoder`, with its errors.
    """
    require_training()
    folder = FitFolder(Path(out))
    options = LoadOptions(str(base), dtype="float32")
    model = load_guarded(options, lambda: load(options, resolve_device(None)))
    _require_positions(options, model, fitting)
    freeze_layers(model, fitting.frozen_layers)
    dataset = _as_dataset(sources, fitting.negatives)
    settings: dict[str, object] = {
        "kind": kind,
        # The fingerprint is that of the files: a model on the hub has been fetched by now.
        "base": reading_fingerprint(options, kind),
        "teacher": None if teacher is None else teacher.fingerprint,
        "pairs": _checksum(sources),
        **asdict(fitting),
    }
    if not fitting.frozen_layers:
        # Fits that were begun before there was this setting froze none.
        del settings["frozen_layers"]
    folder.require_same(settings)
    if check_only or not folder.begin(settings):
        return None
    return Job(model, dataset, folder)


def require_training() -> None:
    """Raise `MissingExtraError` if the libraries for fitting are not installed."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("train", "training") from error


def _require_positions(options: LoadOptions, model: BaseModel, fitting: Fitting) -> None:
    limit = position_limit(encoder_of(model))
    if limit is not None and fitting.max_length > limit:
        raise InvalidInputError(
            f"max_length is {fitting.max_length}; expected at most {limit}, the positions of {options.name_or_path!r}"
        )


def _as_dataset(sources: Sources, negatives: int) -> DatasetDict:
    """Return the examples as columns query, positive, negative_1, ...: one `datasets.Dataset` per source."""
    from datasets import Dataset, DatasetDict

    for name, examples in sources.items():
        fewest = min((len(example.negatives) for example in examples), default=-1)
        if fewest < negatives:
            what = "no example" if fewest < 0 else f"an example of {fewest} negatives"
            raise InvalidInputError(f"{name!r} has {what}; expected examples of {negatives} each (mine_negatives)")
    return DatasetDict(
        {name: Dataset.from_list([_row(example) for example in examples]) for name, examples in sources.items()}
    )


def _row(example: Example) -> dict[str, str]:
    negatives = {f"negative_{number}": text for number, text in enumerate(example.negatives, start=1)}
    return {"query": example.query, "positive": example.positive, **negatives}


def _checksum(sources: Sources) -> str:
    """Return 16 hexadecimal digits of all examples in their order, which a fit depends on."""
    digest = hashlib.sha256()
    for name, examples in sources.items():
        for example in examples:
            line = json.dumps([name, example.query, example.positive, *example.negatives])
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]


def encoder_of(model: BaseModel) -> Transformer:
    """Return the first module of a sentence-transformers model, which encodes."""
    return cast("Transformer", model[0])


def freeze(model: nn.Module, *names: str) -> None:
    """Leave the parameters whose names contain one of `names` as they are."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.requires_grad_(False)


def freeze_layers(model: BaseModel, count: int) -> None:
    """Leave the lowest `count` layers of the encoder as they are.

    Raises
    ------
    InvalidInputError
        If the encoder has no more layers than that, or none that are known.
    """
    from torch.nn import ModuleList

    if not count:
        return
    encoder = encoder_of(model).model
    expected = getattr(encoder.config, "num_hidden_layers", None)
    stacks = [module for module in encoder.modules() if isinstance(module, ModuleList) and len(module) == expected]
    layers = len(stacks[0]) if len(stacks) == 1 else 0
    if count >= layers:
        raise InvalidInputError(
            f"frozen_layers is {count}; expected less than {layers}, the layers of this model"
            if layers
            else f"frozen_layers is {count}; expected 0 for this model, whose layers are not a single list"
        )
    for layer in stacks[0][:count]:
        layer.requires_grad_(False)


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off: on a CPU drawing it takes longer than all the rest, and short fits do not need it."""
    from torch.nn import Dropout

    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0


def head_parameters(model: BaseModel) -> list[str]:
    """Return the names of the parameters outside the encoder: a projection, a classifier."""
    inner = encoder_of(model).model
    prefix = getattr(inner, "base_model_prefix", "")
    # A bare encoder has a prefix as well, but no submodule of that name.
    inside = f"0.model.{prefix}." if hasattr(inner, prefix) else "0."
    return [name for name, _ in model.named_parameters() if not name.startswith(inside)]


def training_arguments(kind: type[ArgumentsT], model: BaseModel, fitting: Fitting, folder: Path) -> ArgumentsT:
    """Return the arguments of a sentence-transformers trainer, of the class `kind`."""
    device = resolve_device(None)
    # The loss wraps the model, so its parameter names have a prefix.
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
        # Mixed precision: the weights stay in float32.
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


def fit(trainer: BaseTrainer, folder: FitFolder) -> None:
    """Train, from the newest checkpoint in `folder` if there is one."""
    _show_progress(trainer)
    newest = folder.newest_checkpoint()
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))


def _show_progress(trainer: BaseTrainer) -> None:
    """Show a bar with the newest loss on standard error, in place of the lines that a trainer writes among results."""
    from tqdm import tqdm
    from transformers import ProgressCallback, TrainerCallback

    class Bar(TrainerCallback):
        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            self._begin = state.global_step, time.monotonic()
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit=" steps", disable=None
            )

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            self._bar.update(state.global_step - self._bar.n)

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: Mapping[str, float] | None = None,
            **_: object,
        ) -> None:
            if logs and "loss" in logs:
                self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

        def on_train_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            self._bar.close()
            steps, seconds = state.global_step - self._begin[0], time.monotonic() - self._begin[1]
            logger.info("%d steps in %.0f s: %.2f steps per second", steps, seconds, steps / max(seconds, 1e-9))

    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
