"""The weight of BM25 in a hybrid search, fitted to judged queries and measured on others."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.checks import whole_number
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.index.fusion import DEFAULT_BM25_WEIGHT, HybridParts
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.measuring import timed
from rerank_integrations.evaluation.metrics import evaluate_run
from rerank_integrations.evaluation.summary import by_rank, p_value

# Weights that are tried: finer steps differ by less than chance.
WEIGHTS = tuple(round(step * 0.05, 2) for step in range(21))
_METRIC = "nDCG@10"
_DEPTH = 10
_SEED = 0


@dataclass(frozen=True)
class WeightFit:
    """BM25's share of a hybrid score, fitted to a collection's judgements.

    Parameters
    ----------
    weight
        0 (ColBERT alone) to 1 (BM25 alone): the one with the best mean nDCG@10 over all queries, averaged with its
        neighbours'.
    ndcg
        Mean nDCG@10 by kind of search: ``colbert``, ``bm25``, and ``hybrid``, whose weight was fitted for each query to
        the queries of the other folds, never to itself.
    p_value
        For ``colbert`` and ``bm25``, the probability that chance makes so large a difference from ``hybrid``, by a
        paired t-test; ``None`` where no query differs.
    fold_weights
        The weight of each fold.
    by_weight
        Mean nDCG@10 over all queries of each weight tried.
    queries
        How many queries were used.
    ms
        Median milliseconds of a hybrid search, with the encoding unless the queries carry their vectors, as in `tune`.
    """

    weight: float
    ndcg: dict[str, float]
    p_value: dict[str, float | None]
    fold_weights: tuple[float, ...]
    by_weight: dict[float, float] = field(repr=False)
    queries: int
    ms: float

    @property
    def is_better(self) -> bool:
        """True if the hybrid search was better than both of its parts on queries that its weight was not fitted to."""
        return self.ndcg["hybrid"] > max(self.ndcg["colbert"], self.ndcg["bm25"])

    def to_json(self) -> dict[str, Any]:
        """Return the fit as JSON can hold it."""
        return {**asdict(self), "by_weight": {f"{weight:g}": value for weight, value in self.by_weight.items()}}


def fit_bm25_weight(
    index: ColBERTIndex | str | os.PathLike[str], data: Dataset, *, folds: int = 5, queries: int = 1000
) -> WeightFit:
    """Fit BM25's share of a hybrid score to judged queries.

    The result is not stored: ``index.store_bm25_weight(fit.weight)`` does that.

    Parameters
    ----------
    index
        An open index that holds the passages of `data`, or its path.
    data
        A collection from `load_dataset`: your own questions, with the passages that answer them.
    folds
        The queries are drawn into so many groups, and the quality of each is measured with a weight that was fitted to
        the others. At least 2.
    queries
        The most queries to use; if there are more, they are drawn with a fixed seed.

    Raises
    ------
    InvalidInputError
        For too few queries, or if the index holds no judged passage.
    MissingExtraError
        Without the extra ``[evaluate]``.
    """
    sample = data.drawn(queries)
    whole_number(folds, "folds", 2)
    if len(sample.queries) < folds:
        raise InvalidInputError(
            f"there are {len(sample.queries)} queries; expected at least one for each of {folds} folds"
        )
    opened = as_index(index)
    try:
        return _fitted(opened, sample, folds)
    finally:
        if opened is not index:
            opened.close()


def _fitted(index: ColBERTIndex, data: Dataset, folds: int) -> WeightFit:
    candidates: list[dict[str, HybridParts]] = []
    ms: list[float] = []
    for text in tqdm(data.queries.values(), desc="both searches", unit=" queries", leave=False, disable=None):
        parts, taken = timed(partial(index.hybrid_parts, text))
        candidates.append(parts)
        ms.append(taken)
    judged = {passage for grades in data.qrels.values() for passage, grade in grades.items() if grade > 0}
    if not any(judged & parts.keys() for parts in candidates):
        raise InvalidInputError(
            f"{index.path} finds no passage that {data.name} judges relevant; are they others' ids?"
        )
    ndcg = np.stack([_ndcg(data, [_ranked(parts, weight) for parts in candidates]) for weight in WEIGHTS])
    by_bm25 = _ndcg(data, [_ranked({k: p for k, p in parts.items() if p.bm25_score > 0}, 1.0) for parts in candidates])
    fold_of = _folds(len(candidates), folds)
    fold_weights = [_best(ndcg[:, fold_of != fold]) for fold in range(folds)]
    hybrid = np.array([ndcg[fold_weights[fold], query] for query, fold in enumerate(fold_of)])
    values = {"colbert": ndcg[0], "bm25": by_bm25, "hybrid": hybrid}
    return WeightFit(
        weight=WEIGHTS[_best(ndcg)],
        ndcg={name: float(row.mean()) for name, row in values.items()},
        p_value={name: p_value(values[name].tolist(), hybrid.tolist()) for name in ("colbert", "bm25")},
        fold_weights=tuple(WEIGHTS[position] for position in fold_weights),
        by_weight=dict(zip(WEIGHTS, ndcg.mean(axis=1).tolist(), strict=True)),
        queries=len(candidates),
        ms=float(np.median(ms)),
    )


def _ranked(parts: Mapping[str, HybridParts], weight: float) -> list[str]:
    """Return the ids of the best candidates by a weight, best first, equal ones by id."""
    scores = {key: part.score(weight) for key, part in parts.items()}
    return sorted(scores, key=lambda key: (-scores[key], key))[:_DEPTH]


def _ndcg(data: Dataset, ranked: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return the nDCG@10 of each query."""
    run = {key: by_rank(ids) for key, ids in zip(data.queries, ranked, strict=True)}
    values = evaluate_run(data.qrels, run)[_METRIC]
    return np.array([values[key] for key in data.queries])


def _folds(count: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each query, drawn with a fixed seed; sizes differ by one at most."""
    numbers = [position % folds for position in range(count)]
    random.Random(_SEED).shuffle(numbers)
    return np.array(numbers)


def _best(ndcg: NDArray[np.float64]) -> int:
    """Return the position of the best weight; of the values around it, which differ by chance, the mean counts.

    Of weights that are equally good the one nearest to the default is taken.
    """
    means = ndcg.mean(axis=1)
    smooth = np.convolve(np.pad(means, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    best = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return int(min(best, key=lambda position: abs(WEIGHTS[position] - DEFAULT_BM25_WEIGHT)))
