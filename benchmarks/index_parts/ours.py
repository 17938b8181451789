"""Our index, measured through its public interface, each time in a process of its own.

Encoding is left out: the model is a stub that hands out vectors that were made before. What is left out as well is the
loading of numba's compiled functions, by building and searching a small index of random vectors first.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from index_parts.data import Corpus, Floats, Queries
from rerank_integrations import ColBERTIndex, Hit, Passage

T = TypeVar("T")

K = 10
DEEP = 100
CALLERS = (1, 8)
# Seconds for which throughput is measured, about.
_SECONDS = 3.0
# Enough for an index that is compressed and has inverted lists.
_WARM_PASSAGES, WARM_TOKENS = 4200, 16


@dataclass(frozen=True)
class Built:
    path: Path
    kind: str
    seconds: float
    peak_mb: float
    tokens: int
    bytes: int
    catalog_bytes: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def vector_bytes_per_token(self) -> float:
        return (self.bytes - self.catalog_bytes) / self.tokens


@dataclass(frozen=True)
class Setting:
    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Times and results of one setting: passage numbers, best first, for `K` and, if requested, `DEEP` hits."""

    name: str
    first_ms: float
    p50_ms: float
    p95_ms: float
    found: list[list[int]]
    deep: list[list[int]]
    per_s: dict[int, float]
    identical: bool


@dataclass(frozen=True)
class Searched:
    """Measurements of an index; `reopen_s` includes the first search, and memory is that after the first setting."""

    reopen_s: float
    rss_mb: float
    anonymous_mb: float
    answers: list[Answers]


@dataclass(frozen=True)
class Added:
    seconds: float
    found_at_once: bool
    first_search_ms: float
    peak_mb: float


class GivenVectors:
    """A token encoder that looks up texts: queries, and passages that were announced once."""

    name = "given-vectors"
    fingerprint = "given-vectors"

    def __init__(self, dim: int, queries: Queries | None = None) -> None:
        self.dim = dim
        self.passages: dict[str, Floats] = {}
        self.queries = dict(zip(queries.texts, queries.vectors, strict=True)) if queries else {}

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        return [self.queries[text] for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return [self.passages.pop(text) for text in texts]


def alone(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a new process, so that its memory is its own; nothing else is measured meanwhile."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def ranks(size: int) -> list[int]:
    """Return a ``rank`` for the metadata of each passage, in random order, for filters that accept a known share."""
    return np.random.default_rng(0).permutation(size).tolist()  # type: ignore[no-any-return]


def build(path: Path, corpus: Corpus, count: int, dim: int, nbits: int, metadata: Sequence[int]) -> Built:
    """Create an index of the first `count` passages by one upsert of an iterator."""
    _warm_up_building(dim)
    encoder = GivenVectors(dim)
    passages = _passages(corpus, encoder, 0, count, metadata)
    start = time.perf_counter()
    with ColBERTIndex.create(path, encoder, nbits=nbits) as index:
        index.upsert(passages, show_progress=False)
        seconds = time.perf_counter() - start
        stats = index.stats()
    sizes = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    catalog = sum(size for file, size in sizes.items() if file.name.startswith("catalog"))
    return Built(path, stats.kind, seconds, _memory_mb()["VmHWM"], stats.tokens, sum(sizes.values()), catalog)


def add(path: Path, corpus: Corpus, start: int, end: int, dim: int, step: int, metadata: Sequence[int]) -> Added:
    """Upsert passages `start` to `end`, `step` per call, then search for the last of them by its own words."""
    _warm_up_building(dim)
    encoder = GivenVectors(dim)
    passages = list(_passages(corpus, encoder, start, end, metadata))
    last = passages[-1]
    encoder.queries[last.text] = encoder.passages[last.text][:32]
    with ColBERTIndex.open(path, encoder) as index:
        begun = time.perf_counter()
        for start_of_call in range(0, len(passages), step):
            index.upsert(passages[start_of_call : start_of_call + step], show_progress=False)
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        hits = index.search(last.text, K)
        first = 1000 * (time.perf_counter() - begun)
    return Added(seconds, last.id in [hit.id for hit in hits], first, _memory_mb()["VmHWM"])


def search(
    path: Path, warm: Path, queries: Queries, settings: Sequence[Setting], *, deep: bool, callers: bool
) -> Searched:
    """Open an index and search it: for every setting all queries once as a warm-up, then one by one, timed.

    The index `warm` is searched before, so that opening is not loading the functions that numba compiled.
    """
    _warm_up_searching(warm, queries)
    encoder = GivenVectors(queries.vectors[0].shape[1], queries)
    start = time.perf_counter()
    with ColBERTIndex.open(path, encoder, read_only=True) as index:
        index.search(queries.texts[0], K)
        reopen = time.perf_counter() - start
        answers = []
        memory: dict[str, float] = {}
        for setting in settings:
            answers.append(_answers(index, queries.texts, setting, deep=deep, callers=callers))
            memory = memory or _memory_mb()
    return Searched(reopen, memory["VmRSS"], memory["RssAnon"], answers)


def _answers(index: ColBERTIndex, texts: list[str], setting: Setting, *, deep: bool, callers: bool) -> Answers:
    def ask(text: str) -> list[Hit]:
        return index.search(text, K, **setting.options)

    first = _timed(ask, texts[0])[0]
    for text in texts:
        ask(text)
    measured = [_timed(ask, text) for text in texts]
    times, serial = [ms for ms, _ in measured], [hits for _, hits in measured]
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    per_s, identical = {}, True
    for count in CALLERS if callers else ():
        per_s[count], same = _throughput(ask, texts, serial, count, math.ceil(1000 * _SECONDS / sum(times)))
        identical = identical and same
    numbers = [[int(hit.id) for hit in hits] for hits in serial]
    further = [[int(hit.id) for hit in index.search(text, DEEP, **setting.options)] for text in texts] if deep else []
    return Answers(setting.name, first, p50, p95, numbers, further, per_s, identical)


def _throughput(
    ask: Callable[[str], list[Hit]], texts: list[str], serial: list[list[Hit]], callers: int, rounds: int
) -> tuple[float, bool]:
    """Return queries per second over `rounds` of all queries, and whether every answer equals the serial one."""
    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        answers = list(pool.map(ask, texts * rounds))
        seconds = time.perf_counter() - start
    return len(answers) / seconds, answers == serial * rounds


def _timed(ask: Callable[[str], list[Hit]], text: str) -> tuple[float, list[Hit]]:
    start = time.perf_counter()
    hits = ask(text)
    return 1000 * (time.perf_counter() - start), hits


def _passages(
    corpus: Corpus, encoder: GivenVectors, start: int, end: int, metadata: Sequence[int]
) -> Iterator[Passage]:
    """Yield passages, announced to the encoder with their vectors; a few hundred are read at a time."""
    step = 256
    texts = corpus.texts(start, end)
    for first in range(start, end, step):
        last = min(end, first + step)
        tokens = corpus.tokens(first, last).astype(np.float32)
        vectors = np.split(tokens, np.cumsum(corpus.lengths[first:last])[:-1])
        for vector, (number, text) in zip(vectors, texts, strict=False):
            encoder.passages[text] = vector
            rank = {"rank": metadata[number]} if number < len(metadata) else {}
            yield Passage(str(number), text, rank)


def warm_index(path: Path, dim: int, tokens: int) -> None:
    """Create a small compressed index of random vectors, `tokens` per passage, which loads all compiled functions."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((_WARM_PASSAGES, tokens, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    encoder = GivenVectors(dim)
    encoder.passages = {str(number): passage for number, passage in enumerate(vectors)}
    with ColBERTIndex.create(path, encoder) as index:
        index.upsert([{"id": text, "text": text} for text in list(encoder.passages)], show_progress=False)


def _warm_up_building(dim: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        warm_index(Path(folder) / "warm", dim, 1)


def _warm_up_searching(path: Path, queries: Queries) -> None:
    encoder = GivenVectors(queries.vectors[0].shape[1], queries)
    with ColBERTIndex.open(path, encoder, read_only=True) as index:
        for options in ({}, {"n_probe": 4}, {"exact": True}):
            index.search(queries.texts[0], K, **options)


def _memory_mb() -> dict[str, float]:
    """Return this process's memory as Linux reports it: peak, current, and current without mapped files."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {line[0][:-1]: int(line[1]) / 1024 for line in lines if line and line[0] in ("VmHWM:", "VmRSS:", "RssAnon:")}
