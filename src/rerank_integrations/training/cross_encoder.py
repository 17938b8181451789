"""Fine-tuning a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.checkpoints.options import LoadOptions
from rerank_integrations.core.models.loaded_cross_encoder import load_pair_model
from rerank_integrations.errors import CheckpointError
from rerank_integrations.training.fitting import (
    Fitting,
    fit,
    freeze,
    prepare,
    training_arguments,
    without_dropout,
)
from rerank_integrations.training.pairs import Example

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def train_cross_encoder(
    base: str | Path,
    sources: Mapping[str, Sequence[Example]],
    out: str | Path,
    fitting: Fitting | None = None,
    *,
    teacher: ColBERTModel | None = None,
    check_only: bool = False,
) -> None:
    """Fine-tune a cross-encoder and write it as a sentence-transformers checkpoint.

    Two losses are minimised: softmax cross-entropy, which puts each query's positive before its negatives and one
    passage of another query, and with a fifth of the weight binary cross-entropy, which makes the sigmoid of a score
    the probability that the passage is relevant. Embeddings of words stay as they are.

    Parameters
    ----------
    base
        As for `CrossEncoderModel`: a name, a path or ``"starter"``.
    sources, out, check_only
        As for `train_colbert`.
    teacher
        A ColBERT whose ranking of the candidates is learnt as well.

    Raises
    ------
    InvalidInputError, CheckpointError, MissingExtraError
        As for `train_colbert`; also `CheckpointError` for a head of several labels.
    """
    fitting = fitting or Fitting()
    job = prepare("cross-encoder", _load, base, sources, out, fitting, teacher=teacher, check_only=check_only)
    if job is None:
        return
    from sentence_transformers import CrossEncoderTrainer, CrossEncoderTrainingArguments

    from rerank_integrations.training.listwise import ListwiseLoss

    model = job.model
    without_dropout(model)
    freeze(model, "embeddings")
    length = model.max_seq_length
    model.max_seq_length = fitting.max_length
    trainer = CrossEncoderTrainer(
        model=model,
        args=training_arguments(CrossEncoderTrainingArguments, model, fitting, job.folder.work),
        train_dataset=job.dataset,
        loss=ListwiseLoss(model, teacher),
    )
    fit(trainer, job.folder)
    model.max_seq_length = length
    job.folder.keep(model)


def _load(options: LoadOptions, device: str) -> CrossEncoder:
    model = load_pair_model(options, device)
    if model.num_labels != 1:
        name, labels = options.name_or_path, model.num_labels
        raise CheckpointError(f"the head of {name!r} has {labels} labels; expected 1, the relevance score")
    return model
