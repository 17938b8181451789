"""Fine-tuning a ColBERT model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rerank_integrations.core.models.loaded_colbert import load_multi_vector
from rerank_integrations.training.fitting import (
    Fitting,
    encoder_of,
    fit,
    freeze,
    prepare,
    training_arguments,
    without_dropout,
)
from rerank_integrations.training.pairs import Example

# MaxSim sums over the query's tokens, so its differences are about 1.
_SCALE = 2.0


def train_colbert(
    base: str | Path,
    sources: Mapping[str, Sequence[Example]],
    out: str | Path,
    fitting: Fitting | None = None,
    *,
    check_only: bool = False,
) -> None:
    """Fine-tune a ColBERT model and write it as a sentence-transformers multi-vector checkpoint.

    Each query's MaxSim with its positive is raised above that with its negatives and with the passages of the other
    queries of the batch, which all have the same source. Embeddings of words stay as they are.

    Parameters
    ----------
    base
        As for `ColBERTModel`: a name, a path or ``"starter"``.
    sources
        Examples with equally many negatives (`mine_negatives`), by the name of their source.
    out
        A folder for the checkpoint. An interrupted fit goes on from what it stored there, and a finished fit is not
        repeated.
    check_only
        Stop before the first step: raise every error that the fit would raise, and write nothing.

    Raises
    ------
    InvalidInputError
        If `out` contains anything else, or a fit of another base, other examples or settings; for examples with too few
        negatives, and for a `max_length` above the model's positions.
    CheckpointError
        As for `ColBERTModel`.
    MissingExtraError
        Without the extra ``train``.

    References
    ----------
    Khattab and Zaharia, ColBERT, SIGIR 2020, arXiv:2004.12832.
    """
    fitting = fitting or Fitting()
    job = prepare("colbert", load_multi_vector, base, sources, out, fitting, check_only=check_only)
    if job is None:
        return
    from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    model = job.model
    without_dropout(model)
    freeze(model, "embeddings", "pooler")
    encoder = encoder_of(model)
    lengths = encoder.query_length, encoder.document_length
    encoder.document_length = fitting.max_length
    trainer = MultiVectorEncoderTrainer(
        model=model,
        args=training_arguments(MultiVectorEncoderTrainingArguments, model, fitting, job.folder.work),
        train_dataset=job.dataset,
        loss=MultiVectorMultipleNegativesRankingLoss(model, scale=_SCALE),
    )
    fit(trainer, job.folder)
    encoder.query_length, encoder.document_length = lengths
    job.folder.keep(model)
