"""How far the scores of a graph are from torch's in float32, on a few sentences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rerank_integrations.core.models.colbert import ColBERTModel
from rerank_integrations.core.models.cross_encoder import CrossEncoderModel

QUERIES = (
    "what do bees eat",
    "how is a zip archive unpacked",
    "why does the sky look blue",
    "红楼梦的作者是谁",
)
PASSAGES = (
    "Honeybees live on nectar and pollen; in winter they eat the honey that they stored.",
    "The module reads and writes ZIP archives. extractall() unpacks all the files of an archive into a folder, by "
    "default the working directory; each name is checked first, since an archive may name a place outside that folder.",
    "Air scatters the short waves of sunlight more than the long ones, so from everywhere above comes blue.",
    "The red planet owes its colour to iron in its soil.",
    "《红楼梦》是清代作家曹雪芹创作的章回体长篇小说。",
    "An archive of letters, kept by the town since 1740, is open on weekdays.",
    "Wasps eat insects, fruit and whatever is sweet on a table in late summer, and unlike bees they store nothing.",
    "Closed on Mondays.",
)


@dataclass(frozen=True)
class Fidelity:
    """A graph beside its model in torch, float32.

    Parameters
    ----------
    path, size
        The graph's folder, and the bytes of its files.
    largest_difference
        Of two scores of a pair: MaxSim of a ColBERT, the logit of a cross-encoder.
    largest_score
        The largest torch score, of either sign: what the difference is to be compared with.
    same_order
        The share, 0 to 1, of two passages of a query that both put in the same order.
    """

    path: Path
    size: int
    largest_difference: float
    largest_score: float
    same_order: float


def measure_fidelity(model: ColBERTModel | CrossEncoderModel) -> Fidelity:
    """Convert `model` if need be, and compare its scores with torch's; `model` has a graph backend.

    Raises
    ------
    MissingExtraError, CheckpointError
        As at the first use of `model`.
    """
    more: dict[str, Any] = {"activation": "raw"} if isinstance(model, CrossEncoderModel) else {}
    graph = type(model)(**{**model.options(), **more})
    reference = type(model)(**{**graph.options(), "backend": "torch", "dtype": "float32", "device": "cpu"})
    path = graph.graph
    if path is None:
        raise ValueError(f"backend is {model.options().get('backend', 'torch')!r}; expected 'onnx' or 'openvino'")
    found = [graph.score(query, PASSAGES) for query in QUERIES]
    graph.unload()
    expected = [reference.score(query, PASSAGES) for query in QUERIES]
    reference.unload()
    pairs = [(ours, theirs) for rows in zip(found, expected, strict=True) for ours, theirs in zip(*rows, strict=True)]
    orders = [
        (ours[a] > ours[b]) == (theirs[a] > theirs[b])
        for ours, theirs in zip(found, expected, strict=True)
        for a, b in combinations(range(len(PASSAGES)), 2)
    ]
    return Fidelity(
        path,
        sum(file.stat().st_size for file in path.iterdir()),
        max(abs(ours - theirs) for ours, theirs in pairs),
        max(abs(theirs) for _, theirs in pairs),
        sum(orders) / len(orders),
    )
