"""What tuning found: every setting that was tried, the one that was chosen, and how to write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

RECALL_AT = (1, 3, 5, 10, 20, 50, 100)
# Fewer say little of small differences.
_MANY_QUERIES = 50


@dataclass(frozen=True)
class Setting:
    """What is chosen.

    Parameters
    ----------
    nbits
        Of ``ColBERTIndex.create``; ``None`` for float16 vectors that are not compressed.
    n_candidates, n_probe
        Of ``ColBERTIndex.search``; ``None`` for its defaults.
    k
        How many hits a search is asked for.
    read
        How many of them a cross-encoder reads; 0 for none.
    """

    nbits: int | None
    n_candidates: int | None
    n_probe: int | None
    k: int
    read: int = 0


@dataclass(frozen=True)
class Trial:
    """One setting, measured.

    Parameters
    ----------
    step
        What was varied: ``exact`` (MaxSim over float16 vectors, the standard), ``nbits``, ``n_candidates``,
        ``n_probe``, ``cross-encoder``, ``k``; ``index`` for one that is not compressed.
    quality
        Mean of each of `METRICS` over the queries, 0 to 1.
    loss
        How much lower its nDCG@10 is than that of exact MaxSim; negative where it is higher.
    p_value
        How probable so large a difference is by chance, by a paired t-test; ``None`` where no query differs.
    ms
        The 50th and 95th percentile of the milliseconds of a query, encoding included.
    bytes_per_token
        Of vectors, their lists and centroids, without the catalog of texts.
    ndcg
        nDCG@10 of each query.
    recall
        Mean recall at 1, 2, 3 ... 100. Past `Setting.k`, with what a search for 100 finds besides.
    """

    step: str
    setting: Setting
    quality: dict[str, float]
    loss: float
    p_value: float | None
    ms: dict[int, float]
    bytes_per_token: float
    ndcg: tuple[float, ...] = field(repr=False)
    recall: tuple[float, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it, recall at some depths only and nothing of single queries."""
        record = {key: value for key, value in asdict(self).items() if key not in ("ndcg", "recall", "ms")}
        return {
            **record,
            "ms": {f"p{percentile}": value for percentile, value in self.ms.items()},
            "recall": {str(depth): self.recall[depth - 1] for depth in RECALL_AT},
        }


@dataclass(frozen=True)
class Tuning:
    """What was tried on a collection, and what was chosen.

    Parameters
    ----------
    data
        The collection's `facts`; ``queries`` is how many were asked.
    queries_in_all
        How many the collection has.
    model, cross_encoder
        Their names.
    tokens, dim
        How many token vectors the passages have, and of how many dimensions.
    compressed
        Whether so large an index is; one that is not is searched exactly.
    budget_ms, percentile
        What a query may take, encoding included: at the median (50) or by all but one in twenty (95).
    encode_ms
        The 50th and 95th percentile of encoding a query.
    exact, trials
        Exact MaxSim, and all settings in the order they were tried.
    chosen
        One of `trials`. If none is within the budget: the fastest.
    top_n
        How many hits to hand on.
    called_ms
        The 50th and 95th percentile of a query as `code` asks it, once more and in one go.
    """

    data: dict[str, Any]
    queries_in_all: int
    model: str
    cross_encoder: str | None
    tokens: int
    dim: int
    compressed: bool
    budget_ms: float
    percentile: int
    encode_ms: dict[int, float]
    exact: Trial
    trials: tuple[Trial, ...]
    chosen: Trial
    top_n: int
    called_ms: dict[int, float]

    @property
    def fits(self) -> bool:
        """Whether the chosen setting is within the budget, as it was measured last."""
        return self.called_ms[self.percentile] <= self.budget_ms

    def within_budget(self, trial: Trial) -> bool:
        """Whether a trial was within the budget."""
        return trial.ms[self.percentile] <= self.budget_ms

    @property
    def shortfall(self) -> str | None:
        """Why `fits` is false, in a sentence; ``None`` where it is true."""
        at = f"p{self.percentile}"
        if self.fits:
            return None
        if not any(self.within_budget(trial) for trial in self.trials):
            return f"nothing is within {self.budget_ms:g} ms at {at}; the setting chosen is the fastest"
        return (
            f"the setting chosen was within {self.budget_ms:g} ms at {at}, but asked once more, in one go, it took "
            f"{self.called_ms[self.percentile]:.1f} ms: the machine is busy, or the budget too close"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the figures, a sentence or two each."""
        return tuple(self._notes())

    def code(self, path: str = "my_index") -> str:
        """Return the lines of Python that make an index at `path` and search it like this."""
        setting = self.chosen.setting
        bits = f", nbits={setting.nbits}" if self.compressed else ""
        given = {"n_candidates": setting.n_candidates, "n_probe": setting.n_probe}
        effort = "".join(f", {name}={value}" for name, value in given.items() if value is not None)
        create = f"index = ColBERTIndex.create({_quoted(path)}, {_quoted(self.model)}{bits})"
        search = f"hits = index.search(query, k={max(self.top_n, setting.read)}{effort})"
        if not setting.read:
            return "\n".join(["from rerank_integrations import ColBERTIndex", "", create, search])
        if self.top_n > setting.read:
            rerank = f"hits = rerank(query, hits[:{setting.read}], reader) + hits[{setting.read}:]"
        else:
            rerank = f"hits = rerank(query, hits, reader, top_n={self.top_n})"
        names = "from rerank_integrations import ColBERTIndex, CrossEncoderModel, rerank"
        reader = f"reader = CrossEncoderModel({_quoted(self.cross_encoder)})"
        return "\n".join([names, "", create, reader, search, rerank])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        plain = ("data", "queries_in_all", "model", "cross_encoder", "tokens", "dim", "compressed", "budget_ms")
        return {
            **{name: getattr(self, name) for name in plain},
            "percentile": self.percentile,
            "encode_ms": {f"p{percentile}": value for percentile, value in self.encode_ms.items()},
            "exact": self.exact.to_json(),
            "trials": [{**trial.to_json(), "within_budget": self.within_budget(trial)} for trial in self.trials],
            "chosen": self.chosen.to_json(),
            "top_n": self.top_n,
            "called_ms": {f"p{percentile}": value for percentile, value in self.called_ms.items()},
            "fits": self.fits,
            "shortfall": self.shortfall,
            "notes": list(self.notes),
            "code": self.code(),
        }

    def _notes(self) -> Iterator[str]:
        asked, at = self.data["queries"], f"p{self.percentile}"
        if asked < self.queries_in_all:
            yield f"Asked {asked} of {self.queries_in_all:,} queries, drawn with a fixed seed."
        if asked < _MANY_QUERIES:
            yield f"So few queries ({asked}) tell only large differences from chance."
        if not self.compressed:
            yield (
                f"{self.data['passages']:,} passages of {self.tokens:,} tokens are few enough to be searched exactly: "
                "nbits, n_candidates and n_probe do nothing yet. An index compresses itself past some 4,000 passages "
                "or 131,072 tokens: tune again then."
            )
        if self.encode_ms[self.percentile] > self.budget_ms:
            yield (
                f"Encoding a query takes {self.encode_ms[self.percentile]:.1f} ms at {at}, more than the whole budget: "
                "no setting of the index can help; take a smaller model or a faster machine."
            )


def _quoted(name: str | None) -> str:
    return json.dumps(name, ensure_ascii=False)
