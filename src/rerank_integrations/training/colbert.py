"""Fine-tuning a ColBERT model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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

# MaxSim sums over the query's tokens, so its differences are of the order of 1.
_SCALE = 2.0


def train_colbert(
    base: str | Path, sources: Mapping[str, Sequence[Example]], out: str | Path, fitting: Fitting | None = None
) -> None:
    """Fine-tune a ColBERT model and write it as a sentence-transformers multi-vector checkpoint.

    Each query's MaxSim with its positive is raised over that with its negatives and with the passages of the other
    queries of the batch, which are all of one source. Embeddings of words stay as they are.

    Parameters
    ----------
    base
        As of `ColBERTModel`: a name, a path or ``"starter"``.
    sources
        Examples with equally many negatives (`mine_negatives`), by the name of their source.
    out
        A folder for the checkpoint. A fit that was stopped goes on from what it kept there.

    Raises
    ------
    InvalidInputError
        If `out` holds something else.
    CheckpointError
        As `ColBERTModel`.
    MissingExtraError
        Without the extra ``train``.

    References
    ----------
    Khattab and Zaharia, ColBERT, SIGIR 2020, arXiv:2004.12832.
    """
    fitting = fitting or Fitting()
    require_training()
    work = require_new(Path(out))
    from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    from rerank_integrations.core.models.encoder import load_multi_vector

    model = load_multi_vector(LoadOptions(str(base), dtype="float32"), resolve_device(None))
    without_dropout(model)
    freeze(model, "embeddings", "pooler")
    lengths = model[0].query_length, model[0].document_length
    model[0].document_length = fitting.max_length
    trainer = MultiVectorEncoderTrainer(
        model=model,
        args=training_arguments(MultiVectorEncoderTrainingArguments, model, fitting, work),
        train_dataset=as_dataset(sources, fitting.negatives),
        loss=MultiVectorMultipleNegativesRankingLoss(model, scale=_SCALE),
    )
    fit(trainer, work)
    model[0].query_length, model[0].document_length = lengths
    save(model, Path(out), work)
