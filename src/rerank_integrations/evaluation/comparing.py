"""Comparison of two results on one collection, query by query, with the passages that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from rerank_integrations.core.models import ColBERTModel, TokenMatch
from rerank_integrations.core.ranking import require_count
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset, Facts, Source, load_dataset
from rerank_integrations.evaluation.measuring import Measured
from rerank_integrations.evaluation.metrics import METRICS
from rerank_integrations.evaluation.pipelines import STARTER, PipelineRecord, RerankRecord, RetrieveRecord
from rerank_integrations.evaluation.summary import p_value, values_of

# Passages shown per query: so many of the top of each result, and so many relevant ones.
_SHOWN_PASSAGES = 3


@dataclass(frozen=True)
class RankedPassage:
    """The ranks of a passage in the two results for a query.

    Parameters
    ----------
    grade
        The judgement, relevant above 0; ``None`` if nobody judged the passage.
    rank_a, rank_b
        1 for the best; ``None`` if it was not retrieved.
    """

    id: str
    grade: int | None
    rank_a: int | None
    rank_b: int | None


@dataclass(frozen=True)
class ShownPassage(RankedPassage):
    """A ranked passage with its text, and the best match of each query token in it; none without a ColBERT model."""

    text: str
    matches: tuple[TokenMatch, ...]


@dataclass(frozen=True)
class QueryChange:
    """A query whose metric differs between the two results.

    Parameters
    ----------
    value_a, value_b
        The metric, 0 to 1; higher is better.
    relevant
        Every relevant passage, those that rank highest in either result first.
    passages
        The best three of each result and the first three of `relevant`, in the same order.
    """

    id: str
    text: str
    value_a: float
    value_b: float
    relevant: tuple[RankedPassage, ...]
    passages: tuple[ShownPassage, ...]


@dataclass(frozen=True)
class Comparison:
    """The differences between two results.

    Parameters
    ----------
    name_a, name_b
        The pipelines' names.
    data
        The collection's `facts` at the time of measuring.
    metric
        One of `METRICS`.
    mean_a, mean_b
        Means of the metric over all queries.
    better, worse, same
        Numbers of queries whose metric is higher in the second result, lower, equal.
    p_value
        The probability that chance makes so large a difference of the means, by a paired t-test over the queries;
        ``None`` where all queries differ by the same amount.
    colbert
        The model that found `ShownPassage.matches`, if any.
    changes
        The queries that changed most, the largest difference first.
    """

    name_a: str
    name_b: str
    data: Facts
    metric: str
    mean_a: float
    mean_b: float
    better: int
    worse: int
    same: int
    p_value: float | None
    colbert: str | None
    changes: tuple[QueryChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        return asdict(self)


def compare(
    a: Measured,
    b: Measured,
    data: Dataset | str | Path | None = None,
    *,
    metric: str = "nDCG@10",
    top: int = 10,
    colbert: ColBERTModel | str | None = "auto",
) -> Comparison:
    """Compare two results query by query.

    Parameters
    ----------
    a, b
        The results before and after, on one collection.
    data
        That collection or its folder; by default the folder recorded in the results. It may have been moved or renamed,
        but its contents must be the same.
    metric
        One of `METRICS`.
    top
        How many of the queries that changed are reported in full.
    colbert
        The model that finds matching tokens: a model, its name or path, ``"auto"`` for the one in the pipeline of `b`,
        else of `a`, if any (that of the latest stage), or ``None`` for no matches.

    Raises
    ------
    InvalidInputError
        For an unknown metric, a negative `top`, results on different collections, and a collection that is not theirs
        or cannot be found.
    """
    if metric not in METRICS:
        raise InvalidInputError(f"metric is {metric!r}; expected one of {', '.join(METRICS)}")
    require_count(top, "top")
    collection = _collection(a, b, data)
    before, after = (values_of(result, collection.qrels)[metric] for result in (a, b))
    changed = [query for query in collection.queries if before[query] != after[query]]
    changed.sort(key=lambda query: -abs(after[query] - before[query]))
    model = _model(a, b, colbert)
    differences = _Differences(a.run, b.run, collection, model)
    reported = tqdm(changed[:top], desc="comparing", unit=" queries", disable=None if model else True)
    changes = tuple(differences.change(query, before[query], after[query]) for query in reported)
    names = a.pipeline["name"], b.pipeline["name"]
    means = fmean(before.values()), fmean(after.values())
    better = sum(after[query] > before[query] for query in changed)
    counts = better, len(changed) - better, len(before) - len(changed)
    colbert_name = None if model is None else model.name
    return Comparison(
        *names,
        b.data,
        metric,
        *means,
        *counts,
        p_value(list(before.values()), [after[query] for query in before]),
        colbert_name,
        changes,
    )


def _collection(a: Measured, b: Measured, data: Dataset | str | Path | None) -> Dataset:
    """Return the common collection of two results; different ones are reported before any is read."""
    if _identity(a.data) != _identity(b.data):
        raise InvalidInputError(
            f"{a.pipeline['name']} was measured on {_describe(a.data)} and {b.pipeline['name']} on "
            f"{_describe(b.data)}; expected results of one collection"
        )
    if not isinstance(data, Dataset):
        data = _read(a, b, data)
    facts = data.facts()
    if _identity(facts) != _identity(a.data):
        raise InvalidInputError(f"data is {_describe(facts)}; the results are of {_describe(a.data)}")
    return data


def _read(a: Measured, b: Measured, folder: str | Path | None) -> Dataset:
    source = b.source or a.source
    if folder is not None:
        return load_dataset(folder, *_split_and_count(source))
    if source is None:
        raise InvalidInputError("the results do not tell where their collection is; expected its folder as data")
    if not Path(source["folder"]).is_dir():
        raise InvalidInputError(
            f"the collection of the results was in {source['folder']}, which is no folder now; "
            "expected its folder as data"
        )
    return load_dataset(source["folder"], *_split_and_count(source))


def _split_and_count(source: Source | None) -> tuple[str, int | None]:
    return ("test", None) if source is None else (source.get("split", "test"), source.get("queries"))


def _identity(facts: Facts) -> dict[str, object]:
    # Without the name, since a renamed folder contains the same collection.
    return {key: value for key, value in facts.items() if key != "name"}


def _describe(facts: Facts) -> str:
    return f"{facts.get('name')!r} ({', '.join(f'{key} {value}' for key, value in _identity(facts).items())})"


def _model(a: Measured, b: Measured, colbert: ColBERTModel | str | None) -> ColBERTModel | None:
    if colbert == "auto":
        colbert = _colbert_of(b.pipeline) or _colbert_of(a.pipeline)
    return ColBERTModel(colbert) if isinstance(colbert, str) else colbert


def _colbert_of(pipeline: PipelineRecord) -> str | None:
    # Records that were edited by hand may lack stages.
    stages: list[RetrieveRecord | RerankRecord] = [*(pipeline.get("rerank") or ())]
    if first := pipeline.get("retrieve"):
        stages.insert(0, first)
    return next((stage.get("model") or STARTER for stage in reversed(stages) if stage.get("kind") == "colbert"), None)


class _Differences:
    """The differences between two results for single queries of their collection."""

    def __init__(
        self, a: Mapping[str, list[str]], b: Mapping[str, list[str]], data: Dataset, model: ColBERTModel | None
    ) -> None:
        self._a, self._b, self._data, self._model = a, b, data, model
        self._texts = {passage.id: passage.text for passage in data.passages}

    def change(self, query: str, value_a: float, value_b: float) -> QueryChange:
        relevant = self._ranked(query, [key for key, grade in self._data.qrels[query].items() if grade > 0])
        tops = [*self._a[query][:_SHOWN_PASSAGES], *self._b[query][:_SHOWN_PASSAGES]]
        shown = self._ranked(query, [*tops, *(passage.id for passage in relevant[:_SHOWN_PASSAGES])])
        text = self._data.queries[query]
        passages = tuple(self._shown(text, passage) for passage in shown)
        return QueryChange(query, text, value_a, value_b, tuple(relevant), passages)

    def _ranked(self, query: str, keys: Sequence[str]) -> list[RankedPassage]:
        grades, ranks_a, ranks_b = self._data.qrels[query], _ranks(self._a[query]), _ranks(self._b[query])
        ranked = [
            RankedPassage(key, grades.get(key), ranks_a.get(key), ranks_b.get(key)) for key in dict.fromkeys(keys)
        ]
        return sorted(ranked, key=_highest)

    def _shown(self, query: str, passage: RankedPassage) -> ShownPassage:
        text = self._texts[passage.id]
        matches = () if self._model is None else self._model.explain(query, text).matches
        return ShownPassage(**asdict(passage), text=text, matches=matches)


def _ranks(ids: Sequence[str]) -> dict[str, int]:
    return {key: rank for rank, key in enumerate(ids, start=1)}


def _highest(passage: RankedPassage) -> tuple[float, float, str]:
    a, b = (float("inf") if rank is None else rank for rank in (passage.rank_a, passage.rank_b))
    return min(a, b), b, passage.id
