"""Measurement of one pipeline on one test collection: ranked passages, time of each stage, memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import distributions, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

from tqdm import tqdm

import rerank_integrations
from rerank_integrations.core.concurrency.lanes import workers
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset, Facts, Source
from rerank_integrations.evaluation.pipelines import STARTER, Pipeline, PipelineRecord, Rerank, Retrieve
from rerank_integrations.evaluation.stages import (
    Reranker,
    Retriever,
    best_reranked,
    is_compressed,
    open_reranker,
    open_retriever,
)
from rerank_integrations.evaluation.vectors import PassageVectors

_PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy", "numba", "faiss-cpu", "bm25s", "ir-measures")


class Origin(TypedDict, total=False):
    """Machine, versions and time of a measurement; empty in results kept before these were recorded."""

    measured_at: str
    processor: str
    cores: int
    memory_gb: float | None
    gpus: list[str]
    os: str
    python: str
    packages: dict[str, str]
    threads: str
    command: str | None


def origin() -> Origin:
    """Return processor, cores, memory, GPUs, system, versions and time, as JSON can hold them.

    ``memory_gb`` is in units of 2**30 bytes and ``None`` where the system does not report it; ``gpus`` is empty without
    one. Loads torch.
    """
    return {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": workers(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {"rerank-integrations": rerank_integrations.__version__} | _versions(),
    }


def gpu_mb() -> float | None:
    """Return torch's peak memory on all GPUs together, in units of 2**20 bytes; ``None`` without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count())) / 2**20


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    if platform.system() == "Darwin":
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES if any(distributions(name=name))}


T = TypeVar("T")
# From a query's text to ids, best first, and the milliseconds of each of `STAGES`.
Ask: TypeAlias = Callable[[str], tuple[list[str], list[float]]]
# The keys are the kind and the name of a model.
ByModel: TypeAlias = Mapping[tuple[str, str], PassageVectors]

THREADS = (
    "Models compute on threads of the package's own, whichever thread asks: a short query on one core, by ColBERT and "
    "by a bi-encoder alike; a longer one, and the passages that a reranker reads, on all cores that torch uses. BM25, "
    "a bi-encoder's vectors and exact MaxSim are searched on one core, a ColBERT index on all."
)
STAGES = ("encode", "retrieve", "rerank")
# Throughput is measured on as many queries as take so many seconds, within these bounds.
_THROUGHPUT_SECONDS, _MAX_THROUGHPUT_QUERIES, _MIN_QUERIES_PER_CALLER = 5, 200, 2


@dataclass(frozen=True)
class Measured:
    """The measurements of one pipeline.

    Parameters
    ----------
    pipeline
        Its `options`; for a retriever of your own, the record that `measure_retriever` describes.
    data
        The collection's `facts`.
    run
        Ids of passages by query's id, best first.
    ms
        Milliseconds per query, in the order of `run`, by stage: ``encode``, ``retrieve`` and ``rerank``.
    build_s, index_bytes
        Time to build the index, the encoding of all passages included, and its size; ``None`` if not known.
    peak_mb
        Peak resident memory of the process, in units of 2**20 bytes; pages of mapped files count.
    per_s
        Queries per second by number of concurrent callers.
    source
        The collection's `source`.
    gpu_mb
        Peak memory of torch on GPUs; ``None`` without one.
    origin
        Machine, versions and time; for pipelines also the ``threads``, and from `evaluate` the ``command``. Empty in
        results kept before these were recorded.
    compressed
        By model, whether the ColBERT indexes with ``nbits`` are compressed: small ones store float16 in any case. Empty
        without such an index, and in results kept before this was recorded.
    """

    pipeline: PipelineRecord
    data: Facts
    run: dict[str, list[str]]
    ms: dict[str, list[float]]
    build_s: float | None
    index_bytes: int | None
    peak_mb: float
    per_s: dict[int, float]
    source: Source | None = None
    gpu_mb: float | None = None
    origin: Origin = field(default_factory=Origin)
    compressed: dict[str, bool] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the measurements as JSON can hold them."""
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> Measured:
        """Return the measurements that `to_json` wrote."""
        try:
            if any(len(record["ms"][stage]) != len(record["run"]) for stage in STAGES):
                raise ValueError("ms is not of the queries in run")
            per_s = {int(callers): float(rate) for callers, rate in record["per_s"].items()}
            ranked = all(isinstance(ids, list) for ids in record["run"].values())
            if not (ranked and isinstance(record["pipeline"]["name"], str) and isinstance(record["data"], dict)):
                raise TypeError("run, pipeline or data is of another kind")
            later = {key: dict(record.get(key, {})) for key in ("origin", "compressed")}
            return Measured(**{**record, **later, "per_s": per_s})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"not the record of a measurement: {error!r}") from error


class _BuiltPipeline:
    """A pipeline with its passages indexed, ready for queries."""

    def __init__(self, pipeline: Pipeline, data: Dataset, vectors: ByModel) -> None:
        self._pipeline, first = pipeline, pipeline.retrieve
        stored = {model: passages.vectors for model, passages in vectors.items()}
        self._retriever: Retriever[Any] = open_retriever(first, stored.get((first.kind, first.model or STARTER)))
        self._retriever.build(data.passages)
        self._rerankers = [
            open_reranker(stage, data.passages, stored.get((stage.kind, stage.model))) for stage in pipeline.rerank
        ]

    @property
    def _opened_stages(self) -> list[Retriever[Any] | Reranker]:
        return [self._retriever, *self._rerankers]

    def bytes(self) -> int:
        """Return the size of all its indexes."""
        return sum(stage.bytes() for stage in self._opened_stages)

    def compressed(self) -> dict[str, bool]:
        """Return whether the indexes with `nbits` are compressed, by model."""
        stages: list[Retrieve | Rerank] = [self._pipeline.retrieve, *self._pipeline.rerank]
        opened = zip(stages, self._opened_stages, strict=True)
        known = [(stage.model or STARTER, is_compressed(part)) for stage, part in opened]
        return {model: compressed for model, compressed in known if compressed is not None}

    def ask(self, text: str) -> tuple[list[str], list[float]]:
        """Return ids, best first, and the milliseconds of each of `STAGES`."""
        query, encoding = timed(lambda: self._retriever.encode(text))
        retrieved, retrieving = timed(lambda: self._retriever.retrieve(query, self._pipeline.retrieve.depth))
        ranked, reranking = timed(lambda: self._reranked(text, retrieved))
        return ranked, [encoding, retrieving, reranking]

    def _reranked(self, text: str, ids: list[str]) -> list[str]:
        for stage, reranker in zip(self._pipeline.rerank, self._rerankers, strict=True):
            ids = best_reranked(text, ids, stage.candidates, reranker)
        return ids


def measure(
    pipeline: Pipeline,
    data: Dataset,
    callers: Sequence[int] = (1, 8),
    *,
    vectors: ByModel | None = None,
    title: str | None = None,
) -> Measured:
    """Build a pipeline on a collection's passages and run all queries, first one after the other, then concurrently.

    The first query runs once more before that, so that no query's time includes the loading of a model.

    Parameters
    ----------
    vectors
        The passages as each of the pipeline's `indexed_models` encodes them. Passages are encoded here for a model
        that is missing. `Measured.build_s` includes the time of encoding in both cases, `Measured.peak_mb` its memory
        only if it happens here.
    title
        The text of the progress bar; by default the pipeline's name.
    """
    stored = vectors or {}
    built, building = timed(lambda: _BuiltPipeline(pipeline, data, stored))
    build_s = building / 1000 + sum(passages.seconds for passages in stored.values())
    measured = measure_queries(
        built.ask, pipeline.options(), data, callers, build_s=build_s, index_bytes=built.bytes(), title=title
    )
    return replace(measured, origin={**measured.origin, "threads": THREADS}, compressed=built.compressed())


def measure_queries(
    ask: Ask,
    pipeline: PipelineRecord,
    data: Dataset,
    callers: Sequence[int],
    *,
    build_s: float | None,
    index_bytes: int | None,
    title: str | None = None,
) -> Measured:
    """Run all queries of a collection as `measure` does; `ask` returns ids and the milliseconds of each of `STAGES`."""
    ask(next(iter(data.queries.values())))
    run: dict[str, list[str]] = {}
    times: list[list[float]] = []
    # A name may hold control sequences, which must not reach the terminal.
    description = printable(title or pipeline["name"], getattr(sys.stderr, "encoding", None) or "utf-8")
    for key, text in tqdm(data.queries.items(), desc=description, unit=" queries", disable=None):
        run[key], ms = ask(text)
        times.append(ms)
    texts = list(data.queries.values())
    per_s = {count: _queries_per_second(ask, _throughput_texts(texts, times, count), count) for count in callers}
    return Measured(
        pipeline,
        data.facts(),
        run,
        {stage: [ms[number] for ms in times] for number, stage in enumerate(STAGES)},
        build_s,
        index_bytes,
        _peak_mb(),
        per_s,
        data.source,
        # Last, since they load torch, which a pipeline without a model does not need.
        gpu_mb(),
        origin(),
    )


def _throughput_texts(texts: list[str], times: list[list[float]], callers: int) -> list[str]:
    ms = sum(map(sum, times)) / len(times)
    count = min(_MAX_THROUGHPUT_QUERIES, len(texts), int(1000 * _THROUGHPUT_SECONDS / max(ms, 1e-3)))
    # Few queries are repeated, so that all callers are busy.
    return list(islice(cycle(texts), max(_MIN_QUERIES_PER_CALLER * callers, count)))


def _queries_per_second(ask: Ask, texts: list[str], callers: int) -> float:
    with ThreadPoolExecutor(callers) as pool:
        _, ms = timed(lambda: list(pool.map(ask, texts)))
    return 1000 * len(texts) / ms


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `work`, and its milliseconds."""
    start = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - start)


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would report the parent's peak, with which a child starts.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    try:
        import resource
    except ImportError:
        return float("nan")
    # Bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
