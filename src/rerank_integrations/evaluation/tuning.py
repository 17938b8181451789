"""Tuning: the settings of a ColBERT index with the most quality within a time per query, and how they were found."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import TokenEncoder, as_colbert_model, as_cross_encoder_model
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.measuring import timed
from rerank_integrations.evaluation.metrics import evaluate_run, means
from rerank_integrations.evaluation.pipelines import STARTER
from rerank_integrations.evaluation.stages import best_reranked, exact_retriever, scoring_texts
from rerank_integrations.evaluation.summary import CHANCE, by_rank, p_value
from rerank_integrations.evaluation.vectors import Encoded, encoded, given_queries, given_vectors

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


# Of nDCG@10. With few queries even a large loss may be chance; so much of it is never taken.
MOST_LOSS = 0.01
# Medians as near as this are taken for equal.
_NEAR = 1.05


def choose(trials: Sequence[Trial], budget_ms: float, percentile: int) -> Trial:
    """Return the cheapest of the trials within the budget that are as good as the best of them.

    As good: its nDCG@10 is at most `MOST_LOSS` lower, and the difference may be chance. Cheapest: the fewest bytes a
    token, then the least time at the median, where times within 5 % are equal and the one tried first is taken. If none
    is within the budget, the fastest.
    """
    fitting = [trial for trial in trials if trial.ms[percentile] <= budget_ms]
    if not fitting:
        return min(trials, key=lambda trial: trial.ms[percentile])
    best = max(fitting, key=lambda trial: trial.quality["nDCG@10"])
    good = [trial for trial in fitting if as_good(trial, best)]
    smallest = min(trial.bytes_per_token for trial in good)
    small = [trial for trial in good if trial.bytes_per_token == smallest]
    fastest = min(trial.ms[50] for trial in small)
    return next(trial for trial in small if trial.ms[50] <= _NEAR * fastest)


def as_good(trial: Trial, best: Trial) -> bool:
    """Whether what `trial` loses against `best` is little and may be chance."""
    chance = p_value(best.ndcg, trial.ndcg)
    return best.quality["nDCG@10"] - trial.quality["nDCG@10"] <= MOST_LOSS and (chance is None or chance >= CHANCE)


def enough(recall: Sequence[float], share: float) -> int:
    """Return the smallest depth at which recall reaches a share of what it is at the last one.

    Parameters
    ----------
    recall
        At 1, 2, 3 ... hits.
    """
    # Sums of floats in other orders differ in their last bits.
    wanted = share * recall[-1] - 1e-9
    return next(depth for depth, value in enumerate(recall, start=1) if value >= wanted)


_NBITS = (1, 2, 4)
_DEFAULT_NBITS = 2
_CANDIDATES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_PROBES = (1, 2, 3, 4, 6, 8)
_READ = (10, 25, 50, 100)
# A search for fewer hits does the same work.
_LEAST_HITS = 10
_SEED = 0


def tune(
    data: Dataset,
    model: str | Path | TokenEncoder = STARTER,
    *,
    budget_ms: float = 20.0,
    percentile: int = 95,
    top_n: int | None = None,
    recall_share: float = 0.99,
    cross_encoder: str | Path | Scorer | None = None,
    queries: int = 300,
) -> Tuning:
    """Choose the settings of a ColBERT index for a time that a query may take.

    Parameters
    ----------
    data
        Of `load_dataset`: the passages that the index will hold, or as many.
    model
        A ColBERT model, or the name or path of one.
    budget_ms
        Milliseconds of a query by one caller, its encoding included.
    percentile
        Where they count: 95, or 50 for the median.
    top_n
        How many hits are handed on, to a reader or a language model, 1 to 100. By default as few as reach
        `recall_share` of the recall at 100.
    recall_share
        Above 0, at most 1.
    cross_encoder
        Also choose how many hits this one reads: none, 10, 25, 50 or 100.
    queries
        How many are asked at most. If there are more, they are drawn with a fixed seed.

    Raises
    ------
    InvalidInputError
        For an argument outside of these, before anything is encoded.
    CheckpointError
        If a model cannot be loaded.
    MissingExtraError
        Without the extra ``[evaluate]``.
    """
    _check(budget_ms, percentile, top_n, recall_share, queries)
    encoder = as_colbert_model(model)
    reader = None if cross_encoder is None else as_cross_encoder_model(cross_encoder)
    asked = data.drawn(queries)
    if reader is not None:
        # Loaded now: that it cannot be is to be told before all passages are encoded.
        reader.score(next(iter(asked.queries.values())), [data.passages[0].text])
    with Bench(asked, encoder, reader) as bench:
        hits = top_n or enough(bench.exact.recall, recall_share)
        compressed = bench.is_compressed(_DEFAULT_NBITS)
        trials: list[Trial] = []
        for step in _steps(compressed, reader is not None, max(hits, _LEAST_HITS), len(data.passages)):
            _take(step, bench, trials, budget_ms, percentile)
        chosen = choose(trials, budget_ms, percentile)
        if chosen.setting.read and top_n is None:
            # In a better order fewer are enough.
            hits = min(hits, enough(chosen.recall, recall_share))
        called = replace(chosen.setting, k=max(hits, chosen.setting.read, _LEAST_HITS))
        if called != chosen.setting:
            chosen = bench.trial("k", called)
            trials.append(chosen)
        return Tuning(
            data=asked.facts(),
            queries_in_all=len(data.queries),
            model=str(encoder.name),
            cross_encoder=None if reader is None else str(getattr(reader, "name", type(reader).__name__)),
            tokens=bench.tokens,
            dim=encoder.dim,
            compressed=compressed,
            budget_ms=budget_ms,
            percentile=percentile,
            encode_ms=bench.encode_ms,
            exact=bench.exact,
            trials=tuple(trials),
            chosen=chosen,
            top_n=hits,
            called_ms=bench.called_ms(called),
        )


@dataclass(frozen=True)
class _Step:
    """What is varied, the settings for it on top of what is chosen, and whether each of them takes longer."""

    name: str
    settings: Callable[[Setting], list[Setting]]
    rising: bool = True


def _steps(compressed: bool, with_reader: bool, k: int, passages: int) -> Iterator[_Step]:
    first = Setting(_DEFAULT_NBITS, None, None, k)
    if compressed:
        yield _Step("nbits", lambda _: [replace(first, nbits=nbits) for nbits in _NBITS], rising=False)
        # Fewer than k are k, and all of them are an exact search.
        candidates = [count for count in _CANDIDATES if k <= count < passages]
        yield _Step("n_candidates", lambda base: [replace(base, n_candidates=count) for count in candidates])
        yield _Step("n_probe", lambda base: [replace(base, n_probe=count) for count in _PROBES])
    else:
        yield _Step("index", lambda _: [first])
    if with_reader:
        read = sorted({min(count, passages) for count in _READ})
        yield _Step("cross-encoder", lambda base: [replace(base, read=count, k=max(k, count)) for count in read])


def _take(step: _Step, bench: Bench, trials: list[Trial], budget_ms: float, percentile: int) -> None:
    """Append a step's trials, up to the first over the budget where the others take longer still."""
    base = choose(trials, budget_ms, percentile).setting if trials else Setting(None, None, None, 0)
    for setting in step.settings(base):
        trials.append(bench.trial(step.name, setting))
        if step.rising and trials[-1].ms[percentile] > budget_ms:
            return


def _check(budget_ms: float, percentile: int, top_n: int | None, recall_share: float, queries: int) -> None:
    if find_spec("ir_measures") is None:
        raise MissingExtraError("evaluate", "tuning")
    if not 0 < budget_ms < math.inf:
        raise InvalidInputError(f"budget_ms is {budget_ms!r}; expected milliseconds, above 0")
    if percentile not in PERCENTILES:
        raise InvalidInputError(f"percentile is {percentile!r}; expected 50 or 95")
    if top_n is not None and (type(top_n) is not int or not 1 <= top_n <= DEPTH):
        raise InvalidInputError(f"top_n is {top_n!r}; expected a whole number from 1 to {DEPTH}")
    if not 0 < recall_share <= 1:
        raise InvalidInputError(f"recall_share is {recall_share!r}; expected a number above 0, at most 1")


# The deepest recall that is measured.
DEPTH = 100
PERCENTILES = (50, 95)
# Asked once more before, so that compiling a loop or opening a file is in no query's time.
_WARM_UP = 3
# Passages whose vectors are held in float32.
_AT_ONCE = 256


class Bench:
    """A collection whose passages and queries are encoded; its indexes go when the ``with`` block ends."""

    def __init__(self, data: Dataset, model: TokenEncoder, reader: Scorer | None) -> None:
        self._data = data
        self._model = model
        self._texts = {passage.id: passage.text for passage in data.passages}
        self._reader = None if reader is None else scoring_texts(reader, self._texts)
        self._vectors = _encoded_passages(list(dict.fromkeys(self._texts.values())), model)
        self._queries, self._encode_ms = self._encoded_queries()
        self._indexes: dict[int, ColBERTIndex] = {}
        self._opened = contextlib.ExitStack()
        self.exact = self._exact()

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def encode_ms(self) -> dict[int, float]:
        """Percentiles of encoding a query, by 50 and 95."""
        return _percentiles(self._encode_ms)

    @property
    def tokens(self) -> int:
        """How many token vectors the passages have."""
        return sum(len(self._vectors[text]) for text in self._texts.values())

    def is_compressed(self, nbits: int) -> bool:
        """Whether an index of these passages is, or is searched exactly."""
        return self._index(nbits).stats().kind == "plaid"

    def trial(self, step: str, setting: Setting) -> Trial:
        """Measure one setting over all queries."""
        assert setting.nbits is not None
        index = self._index(setting.nbits)
        ask = _asker(index, setting)
        run, searching, reading = {}, [], []

        def whole(key: str) -> list[str]:
            return self._read(key, ask(self._queries[key], setting.k), setting.read)

        for key in self._asked(f"{step}: {_told(setting)}", whole):
            found, took = timed(partial(ask, self._queries[key], setting.k))
            searching.append(took)
            run[key], took = timed(partial(self._read, key, found, setting.read))
            reading.append(took)
        # Not among the timed ones, whose caches it would change.
        for key, found in run.items():
            run[key] = _deeper(found, ask(self._queries[key], DEPTH)) if setting.k < DEPTH else found
        stats = index.stats()
        ms = np.sum([self._encode_ms, searching, reading], axis=0)
        return self._measured(step, setting, run, ms, stats.vector_bytes / max(1, stats.tokens))

    def called_ms(self, setting: Setting) -> dict[int, float]:
        """Return percentiles of queries that are encoded, searched and reranked in one go, by 50 and 95."""
        assert setting.nbits is not None
        with ColBERTIndex.open(self._index(setting.nbits).path, self._model, read_only=True) as index:
            ask = _asker(index, setting)

            def whole(key: str) -> list[str]:
                return self._read(key, ask(self._data.queries[key], setting.k), setting.read)

            asked = self._asked("as it will be called", whole)
            return _percentiles([timed(partial(whole, key))[1] for key in asked])

    def _exact(self) -> Trial:
        retriever = exact_retriever(self._model, self._data.passages, [self._vectors[t] for t in self._texts.values()])
        run, searching = {}, []
        for key in self._asked("exact MaxSim", lambda key: retriever.retrieve(self._queries[key].vectors, DEPTH)):
            run[key], took = timed(partial(retriever.retrieve, self._queries[key].vectors, DEPTH))
            searching.append(took)
        ms = np.add(self._encode_ms, searching)
        return self._measured("exact", Setting(None, None, None, DEPTH), run, ms, 2.0 * self._model.dim)

    def _measured(
        self, step: str, setting: Setting, run: Mapping[str, list[str]], ms: Any, bytes_per_token: float
    ) -> Trial:
        values = evaluate_run(self._data.qrels, {key: by_rank(found) for key, found in run.items()})
        ndcg = tuple(values["nDCG@10"][key] for key in self._queries)
        standard = ndcg if step == "exact" else self.exact.ndcg
        return Trial(
            step,
            setting,
            means(values),
            float(np.mean(standard) - np.mean(ndcg)),
            p_value(standard, ndcg),
            _percentiles(ms),
            bytes_per_token,
            ndcg,
            mean_recall(self._data.qrels, run),
        )

    def _index(self, nbits: int) -> ColBERTIndex:
        if nbits not in self._indexes:
            index = ColBERTIndex.create(None, given_vectors(given_queries(self._model), self._vectors), nbits=nbits)
            self._indexes[nbits] = self._opened.enter_context(index)
            index.upsert(self._data.passages)
        return self._indexes[nbits]

    def _read(self, key: str, found: list[str], count: int) -> list[str]:
        if self._reader is None or not count:
            return found
        return best_reranked(self._data.queries[key], found, count, self._reader)

    def _encoded_queries(self) -> tuple[dict[str, Encoded], list[float]]:
        queries, ms = {}, []
        for key in self._asked("encoding queries", lambda key: encoded(self._data.queries[key], self._model)):
            queries[key], took = timed(partial(encoded, self._data.queries[key], self._model))
            ms.append(took)
        return queries, ms

    def _asked(self, what: str, ask: Callable[[str], object]) -> Any:
        keys = list(self._data.queries)
        for key in keys[:_WARM_UP]:
            ask(key)
        return tqdm(keys, desc=what, unit=" queries", leave=False, disable=None)


def mean_recall(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Sequence[str]]) -> tuple[float, ...]:
    """Return the mean recall at 1, 2, 3 ... 100 hits."""
    curves = np.zeros((len(run), DEPTH))
    for row, (key, found) in enumerate(run.items()):
        relevant = {passage for passage, grade in qrels[key].items() if grade > 0}
        hits = [passage in relevant for passage in found[:DEPTH]]
        curves[row, : len(hits)] = hits
        curves[row] = np.cumsum(curves[row]) / len(relevant)
    return tuple(curves.mean(axis=0).tolist())


def _encoded_passages(texts: Sequence[str], model: TokenEncoder) -> dict[str, NDArray[np.float16]]:
    vectors: dict[str, NDArray[np.float16]] = {}
    with tqdm(total=len(texts), desc="encoding passages", unit=" passages", leave=False, disable=None) as bar:
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            encoded_now = model.encode_documents(some)
            vectors.update(zip(some, (each.astype(np.float16) for each in encoded_now), strict=True))
            bar.update(len(some))
    return vectors


def _asker(index: ColBERTIndex, setting: Setting) -> Callable[[str, int], list[str]]:
    def ask(query: str, k: int) -> list[str]:
        hits = index.search(query, k, n_probe=setting.n_probe, n_candidates=setting.n_candidates)
        return [hit.id for hit in hits]

    return ask


def _deeper(found: list[str], more: Sequence[str]) -> list[str]:
    known = set(found)
    return (found + [passage for passage in more if passage not in known])[:DEPTH]


def _percentiles(ms: Sequence[float]) -> dict[int, float]:
    return dict(zip(PERCENTILES, (float(value) for value in np.percentile(ms, PERCENTILES)), strict=True))


def _told(setting: Setting) -> str:
    given = {"bits": setting.nbits, "candidates": setting.n_candidates, "probes": setting.n_probe}
    parts = [f"{value} {name}" for name, value in given.items() if value is not None]
    return ", ".join([*parts, f"{setting.read} read"] if setting.read else parts)
