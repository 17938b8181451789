"""The loss of a cross-encoder against the same sums in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank_integrations import ColBERTModel, CrossEncoderModel
from rerank_integrations.training.listwise import ListwiseLoss

QUERIES = ["unpack an archive", "read a table", "send mail"]
POSITIVES = ["zipfile reads and writes ZIP archives.", "csv reads rows.", "smtplib talks to a server."]
NEGATIVES = ["gzip packs one file.", "json reads objects.", "email writes messages."]


@pytest.mark.parametrize("taught", [False, True])
# A batch of one has no other query's positive, and its own is not to be taken for a negative.
@pytest.mark.parametrize("count", [1, 2, 3])
def test_it_is_the_sum_it_should_be(cross_encoder_dir: Path, colbert_dir: Path, taught: bool, count: int) -> None:
    student = CrossEncoderModel(cross_encoder_dir, device="cpu", dtype="float32", activation="raw")
    teacher = ColBERTModel(colbert_dir, device="cpu", dtype="float32")
    candidates = [[positive, negative] for positive, negative in zip(POSITIVES, NEGATIVES, strict=True)][:count]
    for place, texts in enumerate(candidates if count > 1 else []):
        texts.append(POSITIVES[(place + 1) % count])
    logits, scores = (
        np.array([model.score(query, texts) for query, texts in zip(QUERIES[:count], candidates, strict=True)])
        for model in (student, teacher)
    )
    relevant = np.eye(len(candidates[0]))[[0] * count]
    likely = 1 / (1 + np.exp(-logits))
    expected = -np.log(softmax(logits)[:, 0]).mean()
    expected -= 0.2 * np.where(relevant, np.log(likely), np.log(1 - likely)).mean()
    if taught:
        ours, theirs = softmax(logits / 2), softmax(scores / 2)
        expected += 4 * (theirs * np.log(theirs / ours)).sum(axis=1).mean()
    loss = ListwiseLoss(CrossEncoder(str(cross_encoder_dir), device="cpu"), teacher if taught else None)
    with torch.no_grad():
        found = float(loss([QUERIES[:count], POSITIVES[:count], NEGATIVES[:count]]))
    assert found == pytest.approx(expected, abs=1e-4)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
