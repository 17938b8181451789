"""The loss of a cross-encoder: the positive first, and a score of 0 at even odds."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

# The share of calibration: enough to place the scores, too little to change their order.
_CALIBRATION = 0.2


class ListwiseLoss(nn.Module):
    """Softmax cross-entropy of the positive among the candidates, plus binary cross-entropy of each.

    The candidates of a query are its positive, its negatives and the next query's positive, which is easily told apart.

    Parameters
    ----------
    model
        A `sentence_transformers.CrossEncoder` of one label.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, columns: list[list[str]], labels: Tensor | None = None, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of a batch: `columns` are queries, positives and each negative."""
        queries, *passages = columns
        candidates = [*passages, passages[0][1:] + passages[0][:1]]
        pairs = [pair for column in candidates for pair in zip(queries, column, strict=True)]
        features = batch_to_device(self.model.preprocess(pairs, prompt=prompt, task=task), self.model.device)
        logits = self.model(features)["scores"].float().view(len(candidates), len(queries)).T
        first = torch.zeros(len(queries), dtype=torch.long, device=logits.device)
        relevant = nn.functional.one_hot(first, len(candidates)).to(logits)
        calibration = nn.functional.binary_cross_entropy_with_logits(logits, relevant)
        return nn.functional.cross_entropy(logits, first) + _CALIBRATION * calibration

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says of the loss."""
        return {"calibration": _CALIBRATION}
