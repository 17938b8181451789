"""Passages and queries encoded once, an index of each number of bits made of them, and settings measured on those."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.models import TokenEncoder
from rerank_integrations.core.types import Scorer
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.encoders import Encoded, encoded, given_queries, given_vectors
from rerank_integrations.evaluation.measuring import timed
from rerank_integrations.evaluation.metrics import evaluate_run, means
from rerank_integrations.evaluation.stages import best_reranked, exact_retriever, scoring_texts
from rerank_integrations.evaluation.summary import by_rank, p_value
from rerank_integrations.evaluation.tuning.results import Setting, Trial

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
