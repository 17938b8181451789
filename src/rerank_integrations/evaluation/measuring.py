"""One pipeline on one test collection: what it found, how long each stage took, how much memory it held."""

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
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

import rerank_integrations
from rerank_integrations.core.concurrency.lanes import workers
from rerank_integrations.core.explanations.printable import printable
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.evaluation.data import Dataset
from rerank_integrations.evaluation.pipelines import STARTER, Pipeline, Rerank, Retrieve
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


def origin() -> dict[str, Any]:
    """Return processor, cores, memory, GPUs, system, versions and time, as JSON can hold them.

    ``memory_gb`` is in units of 2**30 bytes and ``None`` where the system does not tell; ``gpus`` is empty without one.
    Loads torch.
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
    """Return the most that torch has held on all GPUs together, in units of 2**20 bytes; ``None`` without a GPU."""
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
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if told.stdout.strip():
            return told.stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES if any(distributions(name=name))}


T = TypeVar("T")
Ask: TypeAlias = Callable[[str], tuple[list[str], list[float]]]
# By kind and name.
ByModel: TypeAlias = Mapping[tuple[str, str], PassageVectors]

THREADS = (
    "Models compute on threads of the package's own, whichever thread asks: a short query on one core, by ColBERT and "
    "by a bi-encoder alike; a longer one, and the passages that a reranker reads, on all cores that torch uses. BM25, "
    "a bi-encoder's vectors and exact MaxSim are searched on one core, a ColBERT index on all."
)
STAGES = ("encode", "retrieve", "rerank")
# Queries that are asked by several callers at once: as many as take so many seconds, but some for each caller.
_AT_ONCE_S, _AT_ONCE_MOST, _AT_ONCE_EACH = 5, 200, 2


@dataclass(frozen=True)
class Measured:
    """What one pipeline did.

    Parameters
    ----------
    pipeline
        Its `options`; of a retriever of your own, what `measure_retriever` says of it.
    data
        The collection's `facts`.
    run
        Ids of passages by query's id, best first.
    ms
        Milliseconds of each query, in the order of `run`: of ``encode``, ``retrieve`` and ``rerank``.
    build_s, index_bytes
        Encoding all passages included; ``None`` where it is not known.
    peak_mb
        The most resident memory that the process has held, in units of 2**20 bytes; pages of mapped files count.
    per_s
        Queries a second by number of callers at once.
    source
        The collection's `source`.
    gpu_mb
        The most memory that torch has held on GPUs; ``None`` without one.
    origin
        Machine, versions and time, as of `origin.origin`, of pipelines the ``threads``, and from `evaluate` the
        ``command``; empty in results kept before these were recorded.
    compressed
        By model, whether the ColBERT indexes with ``nbits`` are compressed: small ones hold float16 whatever it is.
        Empty without such an index, and in results kept before this was recorded.
    """

    pipeline: dict[str, Any]
    data: dict[str, Any]
    run: dict[str, list[str]]
    ms: dict[str, list[float]]
    build_s: float | None
    index_bytes: int | None
    peak_mb: float
    per_s: dict[int, float]
    source: dict[str, Any] | None = None
    gpu_mb: float | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    compressed: dict[str, bool] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> Measured:
        """Return what `to_json` wrote."""
        try:
            if any(len(record["ms"][stage]) != len(record["run"]) for stage in STAGES):
                raise ValueError("ms is not of the queries in run")
            per_s = {int(callers): float(rate) for callers, rate in record["per_s"].items()}
            ranked = all(isinstance(found, list) for found in record["run"].values())
            if not (ranked and isinstance(record["pipeline"]["name"], str) and isinstance(record["data"], dict)):
                raise TypeError("run, pipeline or data is of another kind")
            later = {key: dict(record.get(key, {})) for key in ("origin", "compressed")}
            return Measured(**{**record, **later, "per_s": per_s})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"not the record of a measurement: {error!r}") from error


class _Asked:
    """A built pipeline, ready for queries."""

    def __init__(self, pipeline: Pipeline, data: Dataset, vectors: ByModel) -> None:
        self._pipeline, first = pipeline, pipeline.retrieve
        held = {model: found.vectors for model, found in vectors.items()}
        self._retriever: Retriever = open_retriever(first, held.get((first.kind, first.model or STARTER)))
        self._retriever.build(data.passages)
        self._rerankers = [
            open_reranker(stage, data.passages, held.get((stage.kind, stage.model))) for stage in pipeline.rerank
        ]

    @property
    def _parts(self) -> list[Retriever | Reranker]:
        return [self._retriever, *self._rerankers]

    def bytes(self) -> int:
        """Return how large all its indexes are."""
        return sum(part.bytes() for part in self._parts)

    def compressed(self) -> dict[str, bool]:
        """Return whether the indexes with `nbits` are compressed, by model."""
        stages: list[Retrieve | Rerank] = [self._pipeline.retrieve, *self._pipeline.rerank]
        known = [(stage.model or STARTER, is_compressed(part)) for stage, part in zip(stages, self._parts, strict=True)]
        return {model: compressed for model, compressed in known if compressed is not None}

    def ask(self, text: str) -> tuple[list[str], list[float]]:
        """Return ids, best first, and what each of `STAGES` took in milliseconds."""
        query, encoding = timed(lambda: self._retriever.encode(text))
        found, retrieving = timed(lambda: self._retriever.retrieve(query, self._pipeline.retrieve.depth))
        ranked, reranking = timed(lambda: self._reranked(text, found))
        return ranked, [encoding, retrieving, reranking]

    def _reranked(self, text: str, found: list[str]) -> list[str]:
        for stage, reranker in zip(self._pipeline.rerank, self._rerankers, strict=True):
            found = best_reranked(text, found, stage.candidates, reranker)
        return found


def measure(
    pipeline: Pipeline,
    data: Dataset,
    callers: Sequence[int] = (1, 8),
    *,
    vectors: ByModel | None = None,
    title: str | None = None,
) -> Measured:
    """Build a pipeline on a collection's passages and ask it all queries, one after the other, then several at once.

    The first query is asked once more before, so that loading a model is in no query's time.

    Parameters
    ----------
    vectors
        The passages as each of the pipeline's `indexed_models` encodes them; by one that is missing they are encoded
        here. `Measured.build_s` counts their time in both cases, `Measured.peak_mb` what encoding holds only in the
        latter.
    title
        What the progress bar says; by default the pipeline's name.
    """
    given = vectors or {}
    asked, building = timed(lambda: _Asked(pipeline, data, given))
    build_s = building / 1000 + sum(found.seconds for found in given.values())
    measured = measure_asking(
        asked.ask, pipeline.options(), data, callers, build_s=build_s, index_bytes=asked.bytes(), title=title
    )
    return replace(measured, origin=measured.origin | {"threads": THREADS}, compressed=asked.compressed())


def measure_asking(
    ask: Ask,
    pipeline: dict[str, Any],
    data: Dataset,
    callers: Sequence[int],
    *,
    build_s: float | None,
    index_bytes: int | None,
    title: str | None = None,
) -> Measured:
    """Ask all queries of a collection as `measure` does; `ask` gives ids and the milliseconds of each of `STAGES`."""
    ask(next(iter(data.queries.values())))
    run: dict[str, list[str]] = {}
    times: list[list[float]] = []
    # A name may be anyone's, and steers no terminal.
    said = printable(title or pipeline["name"], getattr(sys.stderr, "encoding", None) or "utf-8")
    for key, text in tqdm(data.queries.items(), desc=said, unit=" queries", disable=None):
        run[key], ms = ask(text)
        times.append(ms)
    texts = list(data.queries.values())
    per_s = {count: _per_s(ask, _asked_at_once(texts, times, count), count) for count in callers}
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
        # Last: they load torch, which a pipeline without a model does not hold.
        gpu_mb(),
        origin(),
    )


def _asked_at_once(texts: list[str], times: list[list[float]], callers: int) -> list[str]:
    ms = sum(map(sum, times)) / len(times)
    count = min(_AT_ONCE_MOST, len(texts), int(1000 * _AT_ONCE_S / max(ms, 1e-3)))
    # Few queries are asked again: all callers are to be busy.
    return list(islice(cycle(texts), max(_AT_ONCE_EACH * callers, count)))


def _per_s(ask: Ask, texts: list[str], callers: int) -> float:
    with ThreadPoolExecutor(callers) as pool:
        _, ms = timed(lambda: list(pool.map(ask, texts)))
    return 1000 * len(texts) / ms


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns, and its milliseconds."""
    start = time.perf_counter()
    done = work()
    return done, 1000 * (time.perf_counter() - start)


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: a child starts with its parent's peak there.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    try:
        import resource
    except ImportError:
        return float("nan")
    # Bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
