"""Fine-tuning a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.models.options import LoadOptions, resolve_device
from rerank_integrations.training.fitting import (
    Fitting,
    as_dataset,
    fit,
    freeze,
    require_new,
    require_training,
    save,
    training_arguments,
    without_dropout,
)
from rerank_integrations.training.pairs import Example


def train_cross_encoder(
    base: str | Path,
    sources: Mapping[str, Sequence[Example]],
    out: str | Path,
    fitting: Fitting | None = None,
    *,
    teacher: ColBERTModel | None = None,
) -> None:
    """Fine-tune a cross-encoder and write it as a sentence-transformers checkpoint.

    Each query's positive is to be first among its negatives and one passage of another query of the batch (softmax
    cross-entropy), and the sigmoid of a score to be the probability that the passage is relevant (binary cross-entropy,
    with a fifth of the weight). Embeddings of words stay as they are.

    Parameters
    ----------
    base
        As of `CrossEncoderModel`: a name, a path or ``"starter"``.
    sources, out
        As of `train_colbert`.
    teacher
        A ColBERT whose ranking of the candidates is learnt beside.

    Raises
    ------
    InvalidInputError, CheckpointError, MissingExtraError
        As `train_colbert`.
    """
    fitting = fitting or Fitting()
    require_training()
    work = require_new(Path(out))
    from sentence_transformers import CrossEncoderTrainer, CrossEncoderTrainingArguments

    from rerank_integrations.core.models.pair_scorer import load_pair_model
    from rerank_integrations.training.listwise import ListwiseLoss

    model = load_pair_model(LoadOptions(str(base), dtype="float32"), resolve_device(None))
    without_dropout(model)
    freeze(model, "embeddings")
    length = model.max_seq_length
    model.max_seq_length = fitting.max_length
    trainer = CrossEncoderTrainer(
        model=model,
        args=training_arguments(CrossEncoderTrainingArguments, model, fitting, work),
        train_dataset=as_dataset(sources, fitting.negatives),
        loss=ListwiseLoss(model, teacher),
    )
    fit(trainer, work)
    model.max_seq_length = length
    save(model, Path(out), work)
