"""Differences between the scores of a converted graph and torch's in float32, on a few sentences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.colbert import ColBERTModel
from rerank_integrations.core.models.cross_encoder import CrossEncoderModel
from rerank_integrations.core.models.graphs.probes import PASSAGES, QUERIES
from rerank_integrations.errors import CheckpointError, InvalidInputError

__all__ = ["PASSAGES", "QUERIES", "Fidelity", "measure_fidelity"]


@dataclass(frozen=True)
class Fidelity:
    """A graph compared with its model in torch, in float32.

    Parameters
    ----------
    path, size
        The graph's folder, and the size of its files.
    largest_difference
        The largest difference between two scores of a pair: MaxSim of a ColBERT model, the logit of a cross-encoder.
    largest_score
        The largest magnitude of torch's scores, to compare the difference with.
    same_order
        The share, 0 to 1, of the pairs of passages of a query that graph and torch put in the same order.
    """

    path: Path
    size: int
    largest_difference: float
    largest_score: float
    same_order: float


def measure_fidelity(model: ColBERTModel | CrossEncoderModel) -> Fidelity:
    """Convert `model` if necessary, and compare its scores with those of torch.

    Raises
    ------
    InvalidInputError
        If `model` has no graph backend.
    MissingExtraError, CheckpointError
        As at the first use of `model`; `CheckpointError` also if the graph is not used because it strays from torch.
    """
    more: dict[str, Any] = {"activation": "raw"} if isinstance(model, CrossEncoderModel) else {}
    graph = type(model)(**{**model.options(), **more})
    reference = type(model)(**{**graph.options(), "backend": "torch", "dtype": "float32", "device": "cpu"})
    backend, dtype = (model.options().get(name) for name in ("backend", "dtype"))
    if backend is None:
        raise InvalidInputError("backend is 'torch'; expected 'onnx' or 'openvino'")
    path = graph.converted_path
    if path is None:
        raise CheckpointError(
            f"the graph of {model.name!r} for backend={backend!r} and dtype={dtype or 'auto'!r} strays too far from "
            "torch on this processor, so torch computes in its place; expected another dtype or backend"
        )
    scores = [graph.score(query, PASSAGES) for query in QUERIES]
    graph.unload()
    expected = [reference.score(query, PASSAGES) for query in QUERIES]
    reference.unload()
    pairs = [(ours, theirs) for rows in zip(scores, expected, strict=True) for ours, theirs in zip(*rows, strict=True)]
    orders = [
        (ours[a] > ours[b]) == (theirs[a] > theirs[b])
        for ours, theirs in zip(scores, expected, strict=True)
        for a, b in combinations(range(len(PASSAGES)), 2)
    ]
    return Fidelity(
        path,
        sum(file.stat().st_size for file in path.iterdir()),
        max(abs(ours - theirs) for ours, theirs in pairs),
        max(abs(theirs) for _, theirs in pairs),
        sum(orders) / len(orders),
    )
