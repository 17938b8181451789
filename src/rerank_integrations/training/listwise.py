"""The loss of a cross-encoder: the positive first, the others in a teacher's order, and a score of 0 at even odds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from rerank_integrations.core.maxsim import maxsim_many
from rerank_integrations.core.models import ColBERTModel

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# The weight of calibration: enough to set the scale of the scores, too little to change their order.
_CALIBRATION_WEIGHT = 0.2
# Softens both rankings, so that the order of worse candidates is learnt as well.
_TEMPERATURE = 2.0


class ListwiseLoss(nn.Module):
    """Softmax cross-entropy of the positive among the candidates, plus binary cross-entropy of each.

    The candidates of a query are its positive, its negatives and, if the batch has another query, the positive of the
    next one, which is an easy negative.

    Parameters
    ----------
    model
        A `sentence_transformers.CrossEncoder` of one label.
    teacher
        If present, the Kullback-Leibler divergence from the softmax of its MaxSim over the candidates is added, so that
        the cross-encoder keeps a ColBERT's knowledge of subjects that the pairs do not cover.

    References
    ----------
    Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """

    def __init__(self, model: CrossEncoder, teacher: ColBERTModel | None = None) -> None:
        super().__init__()
        self.model = model
        self._teacher = teacher

    def forward(
        self, columns: list[list[str]], labels: Tensor | None = None, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of a batch: `columns` are queries, positives and each negative."""
        queries, *passages = columns
        candidates = [*passages]
        # In a batch of one query, perhaps the last of an epoch, the next query is the same.
        if len(queries) > 1:
            candidates.append(passages[0][1:] + passages[0][:1])
        pairs = [pair for column in candidates for pair in zip(queries, column, strict=True)]
        features = batch_to_device(self.model.preprocess(pairs, prompt=prompt, task=task), self.model.device)
        logits = self.model(features)["scores"].float().view(len(candidates), len(queries)).T
        first = torch.zeros(len(queries), dtype=torch.long, device=logits.device)
        relevant = nn.functional.one_hot(first, len(candidates)).to(logits)
        calibration = nn.functional.binary_cross_entropy_with_logits(logits, relevant)
        loss = nn.functional.cross_entropy(logits, first) + _CALIBRATION_WEIGHT * calibration
        if self._teacher is None:
            return loss
        return loss + _divergence(logits, _maxsim(self._teacher, queries, candidates).to(logits))

    def get_config_dict(self) -> dict[str, object]:
        """Return the settings of the loss for the model card."""
        return {"calibration": _CALIBRATION_WEIGHT, "teacher": None if self._teacher is None else self._teacher.name}


def _divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """Return the divergence of the ranking by `logits` from the one `taught`, scaled like a cross-entropy."""
    ours, theirs = ((scores / _TEMPERATURE).log_softmax(dim=1) for scores in (logits, taught))
    return _TEMPERATURE**2 * nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _maxsim(teacher: ColBERTModel, queries: list[str], candidates: list[list[str]]) -> Tensor:
    """Return the teacher's scores, *Shape:* (queries, candidates per query); `candidates` are columns."""
    vectors = iter(teacher.encode_documents([text for column in candidates for text in column]))
    columns = [[next(vectors) for _ in column] for column in candidates]
    rows = zip(teacher.encode_queries(queries), zip(*columns, strict=True), strict=True)
    return torch.tensor([maxsim_many(query, list(passages)) for query, passages in rows])
