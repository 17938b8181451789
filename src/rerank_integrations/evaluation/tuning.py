"""Tuning: choose the settings of a ColBERT index with the most quality within a time per query."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import TokenEncoder, as_colbert_model, as_cross_encoder_model
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.evaluation.bm25_weight import WeightFit, fit_bm25_weight
from rerank_integrations.evaluation.data import Dataset, Facts
from rerank_integrations.evaluation.measuring import timed
from rerank_integrations.evaluation.metrics import evaluate_run, means
from rerank_integrations.evaluation.pipelines import STARTER
from rerank_integrations.evaluation.stages import best_reranked, exact_retriever, scoring_texts
from rerank_integrations.evaluation.summary import CHANCE, by_rank, p_value
from rerank_integrations.evaluation.vectors import Encoded, Vectors, encoded, given_queries, given_vectors

FloatArray: TypeAlias = NDArray[np.float64]
Step: TypeAlias = Literal["exact", "index", "nbits", "n_candidates", "n_probe", "cross-encoder", "k"]
# Depths of the recall that a record keeps, and the deepest one that is measured.
RECALL_AT = (1, 3, 5, 10, 20, 50, 100)
DEPTH = 100
PERCENTILES = (50, 95)
# The largest loss of nDCG@10 that is ever accepted: with few queries even a large one may be due to chance.
MOST_LOSS = 0.01
# Medians within this factor count as equal.
_EQUAL_TIMES_FACTOR = 1.05
# Fewer queries cannot tell small differences from chance.
_ENOUGH_QUERIES = 50
_FOLDS = 5
_NBITS = (1, 2, 4)
_DEFAULT_NBITS = 2
_CANDIDATES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_PROBES = (1, 2, 3, 4, 6, 8)
_READ = (10, 25, 50, 100)
# A search for fewer hits does the same work.
_MIN_HITS = 10
# Queries that run once before the timed ones, so that no time includes compiling a loop or opening a file.
_WARM_UP_QUERIES = 3
# Passages per call of the encoder, whose vectors are in memory as float32.
_PASSAGES_PER_CALL = 256


@dataclass(frozen=True)
class Setting:
    """Arguments of an index and its searches.

    Parameters
    ----------
    nbits
        As in ``ColBERTIndex.create``; ``None`` for float16 vectors that are not compressed.
    n_candidates, n_probe
        As in ``ColBERTIndex.search``; ``None`` for its defaults.
    k
        Hits per search.
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
        The argument that was varied: ``exact`` (MaxSim over float16 vectors, the standard), ``nbits``,
        ``n_candidates``, ``n_probe``, ``cross-encoder``, ``k``; ``index`` for an index that is not compressed.
    quality
        Mean of each of `METRICS` over the queries, 0 to 1.
    loss
        How much lower its nDCG@10 is than that of exact MaxSim; negative if it is higher.
    p_value
        The probability that chance makes so large a difference, by a paired t-test; ``None`` where no query differs.
    ms
        The 50th and 95th percentile of the milliseconds per query, encoding included.
    bytes_per_token
        Size of the vectors, their lists and the centroids, without the catalog of texts.
    ndcg
        nDCG@10 of each query.
    recall
        Mean recall at 1, 2, 3 ... 100. Past `Setting.k`, the other hits of a search for 100 follow.
    """

    step: Step
    setting: Setting
    quality: dict[str, float]
    loss: float
    p_value: float | None
    ms: dict[int, float]
    bytes_per_token: float
    ndcg: tuple[float, ...] = field(repr=False)
    recall: tuple[float, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON can hold it, with recall at some depths only and no values of single queries."""
        record = {key: value for key, value in asdict(self).items() if key not in ("ndcg", "recall", "ms")}
        return {
            **record,
            "ms": {f"p{percentile}": value for percentile, value in self.ms.items()},
            "recall": {str(depth): self.recall[depth - 1] for depth in RECALL_AT},
        }


@dataclass(frozen=True)
class Tuning:
    """The settings that were tried on a collection, and the one that was chosen.

    Parameters
    ----------
    data
        The collection's `facts`; ``queries`` is the number that was used.
    queries_in_all
        The number of queries in the collection.
    model, cross_encoder
        Their names.
    tokens, dim
        Number and dimension of the passages' token vectors.
    compressed
        Whether an index of this size is compressed; otherwise it is searched exactly.
    budget_ms, percentile
        The most milliseconds per query, encoding included: at the median (50) or for all but one query in twenty (95).
    encode_ms
        The 50th and 95th percentile of the milliseconds to encode a query.
    exact, trials
        Exact MaxSim, and all settings in the order they were tried.
    chosen
        One of `trials`; the fastest if none is within the budget.
    top_n
        How many hits to pass on.
    called_ms
        The 50th and 95th percentile of the milliseconds per query as `code` runs it, measured again in one call.
    hybrid
        BM25's share of a hybrid search of the chosen index, fitted to the judgements; ``None`` for too few queries.
    """

    data: Facts
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
    hybrid: WeightFit | None = None

    @property
    def fits(self) -> bool:
        """True if the chosen setting was within the budget when it was measured last."""
        return self.called_ms[self.percentile] <= self.budget_ms

    def within_budget(self, trial: Trial) -> bool:
        """Return True if a trial was within the budget."""
        return trial.ms[self.percentile] <= self.budget_ms

    @property
    def shortfall(self) -> str | None:
        """The reason why `fits` is false, in a sentence; ``None`` if it is true."""
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
        """Remarks on the figures, of one or two sentences each."""
        return tuple(self._notes())

    def code(self, path: str = "my_index") -> str:
        """Return the lines of Python that create an index at `path` and search it with the chosen setting."""
        setting = self.chosen.setting
        bits = f", nbits={setting.nbits}" if self.compressed else ""
        options = {"n_candidates": setting.n_candidates, "n_probe": setting.n_probe}
        effort = "".join(f", {name}={value}" for name, value in options.items() if value is not None)
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
        """Return the tuning as JSON can hold it."""
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
            "hybrid": None if self.hybrid is None else self.hybrid.to_json(),
        }

    def _notes(self) -> Iterator[str]:
        used, at = self.data["queries"], f"p{self.percentile}"
        if used < self.queries_in_all:
            yield f"Asked {used} of {self.queries_in_all:,} queries, drawn with a fixed seed."
        if used < _ENOUGH_QUERIES:
            yield f"So few queries ({used}) tell only large differences from chance."
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


def choose(trials: Sequence[Trial], budget_ms: float, percentile: int) -> Trial:
    """Return the cheapest of the trials within the budget that are as good as the best of them.

    A trial is as good if its nDCG@10 is at most `MOST_LOSS` lower and the difference may be due to chance. The cheapest
    has the fewest bytes per token, then the lowest median time; times within 5 % count as equal, and the one tried
    first is taken. If none is within the budget, the fastest is returned.
    """
    fitting = [trial for trial in trials if trial.ms[percentile] <= budget_ms]
    if not fitting:
        return min(trials, key=lambda trial: trial.ms[percentile])
    best = max(fitting, key=lambda trial: trial.quality["nDCG@10"])
    good = [trial for trial in fitting if as_good(trial, best)]
    smallest = min(trial.bytes_per_token for trial in good)
    small = [trial for trial in good if trial.bytes_per_token == smallest]
    fastest = min(trial.ms[50] for trial in small)
    return next(trial for trial in small if trial.ms[50] <= _EQUAL_TIMES_FACTOR * fastest)


def as_good(trial: Trial, best: Trial) -> bool:
    """Return whether the loss of `trial` against `best` is small and may be due to chance."""
    chance = p_value(best.ndcg, trial.ndcg)
    return best.quality["nDCG@10"] - trial.quality["nDCG@10"] <= MOST_LOSS and (chance is None or chance >= CHANCE)


def enough(recall: Sequence[float], share: float) -> int:
    """Return the smallest depth at which recall reaches a share of the recall at the last depth.

    Parameters
    ----------
    recall
        Recall at 1, 2, 3 ... hits.
    """
    # The same sums of floats in another order differ in their last bits.
    wanted = share * recall[-1] - 1e-9
    return next(depth for depth, value in enumerate(recall, start=1) if value >= wanted)


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
    """Choose the settings of a ColBERT index for a maximum time per query.

    Parameters
    ----------
    data
        A collection from `load_dataset` with the passages of the future index, or as many similar ones.
    model
        A ColBERT model, or the name or path of one.
    budget_ms
        Milliseconds per query by one caller, encoding included.
    percentile
        The percentile of the time that must be within the budget: 95, or 50 for the median.
    top_n
        How many hits are passed on, to a cross-encoder or a language model, 1 to 100. By default the fewest that reach
        `recall_share` of the recall at 100.
    recall_share
        Above 0, at most 1.
    cross_encoder
        Also choose how many hits this model reads: none, 10, 25, 50 or 100.
    queries
        The most queries to use; if there are more, they are drawn with a fixed seed.

    Raises
    ------
    InvalidInputError
        For any other argument, before anything is encoded.
    CheckpointError
        If a model cannot be loaded.
    MissingExtraError
        Without the extra ``[evaluate]``.
    """
    _check(budget_ms, percentile, top_n, recall_share, queries)
    encoder = as_colbert_model(model)
    scorer = None if cross_encoder is None else as_cross_encoder_model(cross_encoder)
    sample = data.drawn(queries)
    if scorer is not None:
        # Loaded now, so that a failure is reported before all passages are encoded.
        scorer.score(next(iter(sample.queries.values())), [data.passages[0].text])
    with Bench(sample, encoder, scorer) as bench:
        hits = top_n or enough(bench.exact.recall, recall_share)
        compressed = bench.is_compressed(_DEFAULT_NBITS)
        trials: list[Trial] = []
        for step in _steps(compressed, scorer is not None, max(hits, _MIN_HITS), len(data.passages)):
            _try_step(step, bench, trials, budget_ms, percentile)
        chosen = choose(trials, budget_ms, percentile)
        if chosen.setting.read and top_n is None:
            # In a better order fewer hits are enough.
            hits = min(hits, enough(chosen.recall, recall_share))
        called = replace(chosen.setting, k=max(hits, chosen.setting.read, _MIN_HITS))
        if called != chosen.setting:
            chosen = bench.trial("k", called)
            trials.append(chosen)
        return Tuning(
            data=sample.facts(),
            queries_in_all=len(data.queries),
            model=str(encoder.name),
            cross_encoder=None if scorer is None else str(getattr(scorer, "name", type(scorer).__name__)),
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
            hybrid=bench.hybrid(called),
        )


@dataclass(frozen=True)
class _Step:
    """A step of the search: the settings to try on top of those chosen so far, and whether each takes longer."""

    name: Step
    settings: Callable[[Setting], list[Setting]]
    slower_each: bool = True


def _steps(compressed: bool, with_cross_encoder: bool, k: int, passages: int) -> Iterator[_Step]:
    first = Setting(_DEFAULT_NBITS, None, None, k)
    if compressed:
        yield _Step("nbits", lambda _: [replace(first, nbits=nbits) for nbits in _NBITS], slower_each=False)
        # Fewer candidates than k count as k, and as many as there are passages are an exact search.
        candidates = [count for count in _CANDIDATES if k <= count < passages]
        yield _Step("n_candidates", lambda base: [replace(base, n_candidates=count) for count in candidates])
        yield _Step("n_probe", lambda base: [replace(base, n_probe=count) for count in _PROBES])
    else:
        yield _Step("index", lambda _: [first])
    if with_cross_encoder:
        read = sorted({min(count, passages) for count in _READ})
        yield _Step("cross-encoder", lambda base: [replace(base, read=count, k=max(k, count)) for count in read])


def _try_step(step: _Step, bench: Bench, trials: list[Trial], budget_ms: float, percentile: int) -> None:
    """Append a step's trials; stop at the first over the budget if the others take longer still."""
    base = choose(trials, budget_ms, percentile).setting if trials else Setting(None, None, None, 0)
    for setting in step.settings(base):
        trials.append(bench.trial(step.name, setting))
        if step.slower_each and trials[-1].ms[percentile] > budget_ms:
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


class Bench:
    """A collection with its passages and queries encoded; its indexes are removed when the ``with`` block ends."""

    def __init__(self, data: Dataset, model: TokenEncoder, scorer: Scorer | None) -> None:
        self._data = data
        self._model = model
        self._texts = {passage.id: passage.text for passage in data.passages}
        self._reranker = None if scorer is None else scoring_texts(scorer, self._texts)
        self._vectors = _encoded_passages(list(dict.fromkeys(self._texts.values())), model)
        self._queries, self._encode_ms = self._encoded_queries()
        self._indexes: dict[int, ColBERTIndex] = {}
        self._open_indexes = contextlib.ExitStack()
        self.exact: Trial = self._exact()

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_indexes.close()

    @property
    def encode_ms(self) -> dict[int, float]:
        """The 50th and 95th percentile of the milliseconds to encode a query."""
        return _percentiles(self._encode_ms)

    @property
    def tokens(self) -> int:
        """The number of token vectors of the passages."""
        return sum(len(self._vectors[text]) for text in self._texts.values())

    def is_compressed(self, nbits: int) -> bool:
        """Return whether an index of these passages is compressed; otherwise it is searched exactly."""
        return self._index(nbits).stats().kind == "plaid"

    def trial(self, step: Step, setting: Setting) -> Trial:
        """Measure one setting over all queries."""
        assert setting.nbits is not None
        index = self._index(setting.nbits)
        search = _search(index, setting)
        run, search_ms, rerank_ms = {}, [], []

        def answer(key: str) -> list[str]:
            return self._reranked(key, search(self._queries[key], setting.k), setting.read)

        for key in self._warmed_up_keys(f"{step}: {_description(setting)}", answer):
            ids, ms = timed(partial(search, self._queries[key], setting.k))
            search_ms.append(ms)
            run[key], ms = timed(partial(self._reranked, key, ids, setting.read))
            rerank_ms.append(ms)
        # These searches run after the timed ones, whose caches they would change.
        for key, ids in run.items():
            run[key] = _deeper(ids, search(self._queries[key], DEPTH)) if setting.k < DEPTH else ids
        stats = index.stats()
        total_ms = np.sum([self._encode_ms, search_ms, rerank_ms], axis=0)
        return self._measured(step, setting, run, total_ms, stats.vector_bytes / max(1, stats.tokens))

    def called_ms(self, setting: Setting) -> dict[int, float]:
        """Return the 50th and 95th percentile of the milliseconds to encode, search and rerank a query in one call."""
        assert setting.nbits is not None
        with ColBERTIndex.open(self._index(setting.nbits).path, self._model, read_only=True) as index:
            search = _search(index, setting)

            def answer(key: str) -> list[str]:
                return self._reranked(key, search(self._data.queries[key], setting.k), setting.read)

            keys = self._warmed_up_keys("as it will be called", answer)
            return _percentiles([timed(partial(answer, key))[1] for key in keys])

    def hybrid(self, setting: Setting) -> WeightFit | None:
        """Return BM25's share of a hybrid search, fitted to the judgements; ``None`` for too few queries."""
        assert setting.nbits is not None
        if len(self._queries) < _FOLDS:
            return None
        with_vectors = replace(self._data, queries=dict(self._queries))
        return fit_bm25_weight(self._index(setting.nbits), with_vectors, folds=_FOLDS, queries=len(self._queries))

    def _exact(self) -> Trial:
        retriever = exact_retriever(self._model, self._data.passages, [self._vectors[t] for t in self._texts.values()])
        run, search_ms = {}, []

        def search(key: str) -> list[str]:
            return retriever.retrieve(self._queries[key].vectors, DEPTH)

        for key in self._warmed_up_keys("exact MaxSim", search):
            run[key], ms = timed(partial(search, key))
            search_ms.append(ms)
        total_ms = np.add(self._encode_ms, search_ms)
        return self._measured("exact", Setting(None, None, None, DEPTH), run, total_ms, 2.0 * self._model.dim)

    def _measured(
        self, step: Step, setting: Setting, run: Mapping[str, list[str]], ms: FloatArray, bytes_per_token: float
    ) -> Trial:
        values = evaluate_run(self._data.qrels, {key: by_rank(ids) for key, ids in run.items()})
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
            self._indexes[nbits] = self._open_indexes.enter_context(index)
            index.upsert(self._data.passages)
        return self._indexes[nbits]

    def _reranked(self, key: str, ids: list[str], count: int) -> list[str]:
        if self._reranker is None or not count:
            return ids
        return best_reranked(self._data.queries[key], ids, count, self._reranker)

    def _encoded_queries(self) -> tuple[dict[str, Encoded], list[float]]:
        queries, ms = {}, []

        def encode(key: str) -> Encoded:
            return encoded(self._data.queries[key], self._model)

        for key in self._warmed_up_keys("encoding queries", encode):
            queries[key], encode_ms = timed(partial(encode, key))
            ms.append(encode_ms)
        return queries, ms

    def _warmed_up_keys(self, description: str, run: Callable[[str], object]) -> Iterable[str]:
        """Return the ids of the queries, with a progress bar, after some have run once."""
        keys = list(self._data.queries)
        for key in keys[:_WARM_UP_QUERIES]:
            run(key)
        return tqdm(keys, desc=description, unit=" queries", leave=False, disable=None)


def mean_recall(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Sequence[str]]) -> tuple[float, ...]:
    """Return the mean recall at 1, 2, 3 ... 100 hits."""
    curves = np.zeros((len(run), DEPTH))
    for row, (key, ids) in enumerate(run.items()):
        relevant = {passage for passage, grade in qrels[key].items() if grade > 0}
        hits = [passage in relevant for passage in ids[:DEPTH]]
        curves[row, : len(hits)] = hits
        curves[row] = np.cumsum(curves[row]) / len(relevant)
    return tuple(curves.mean(axis=0).tolist())


def _encoded_passages(texts: Sequence[str], model: TokenEncoder) -> dict[str, Vectors]:
    vectors: dict[str, Vectors] = {}
    with tqdm(total=len(texts), desc="encoding passages", unit=" passages", leave=False, disable=None) as bar:
        for start in range(0, len(texts), _PASSAGES_PER_CALL):
            batch = texts[start : start + _PASSAGES_PER_CALL]
            tokens = model.encode_documents(batch)
            vectors.update(zip(batch, (vector.astype(np.float16) for vector in tokens), strict=True))
            bar.update(len(batch))
    return vectors


def _search(index: ColBERTIndex, setting: Setting) -> Callable[[str, int], list[str]]:
    def search(query: str, k: int) -> list[str]:
        hits = index.search(query, k, n_probe=setting.n_probe, n_candidates=setting.n_candidates)
        return [hit.id for hit in hits]

    return search


def _deeper(ids: list[str], more: Sequence[str]) -> list[str]:
    known = set(ids)
    return (ids + [passage for passage in more if passage not in known])[:DEPTH]


def _percentiles(ms: Sequence[float] | FloatArray) -> dict[int, float]:
    return dict(zip(PERCENTILES, (float(value) for value in np.percentile(ms, PERCENTILES)), strict=True))


def _description(setting: Setting) -> str:
    values = {"bits": setting.nbits, "candidates": setting.n_candidates, "probes": setting.n_probe}
    parts = [f"{value} {name}" for name, value in values.items() if value is not None]
    return ", ".join([*parts, f"{setting.read} read"] if setting.read else parts)
