"""State that the parts of the reranking benchmark share: sizes, models, indexes, figures, and measuring in turns."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from common.report import Report
from numpy.typing import NDArray

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage
from rerank_integrations.evaluation.vectors import given_vectors, open_vectors, store_vectors
from rerank_parts.data import CandidateQuery, Pool, passages_of, queries_of, queries_with_candidates

DEPTH = 100
K = 10
# Candidates of an untimed first query, with which each system loads its weights and compiled functions.
_WARMING = 16

# Prepares a query, untimed; the function it returns is timed and returns ids, best first.
System: TypeAlias = Callable[[CandidateQuery], Callable[[], list[str]]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark, in queries unless the name says otherwise.

    Parameters
    ----------
    passages
        Of scifact, that are indexed; ``None`` for all.
    depth
        Candidates of a query where all of them are encoded more than once.
    """

    passages: int | None
    depth: int
    stored: int
    cross: int
    quality: int
    windows: int
    long_documents: int
    threads: int
    threads_candidates: int


FULL = Sizes(
    passages=None,
    depth=DEPTH,
    stored=40,
    cross=20,
    quality=20,
    windows=60,
    long_documents=60,
    threads=128,
    threads_candidates=20,
)
# 600 of scifact's passages have more than the 131,072 tokens from which an index compresses itself.
QUICK = Sizes(
    passages=600,
    depth=32,
    stored=5,
    cross=5,
    quality=5,
    windows=5,
    long_documents=24,
    threads=32,
    threads_candidates=4,
)


@dataclass
class Bench(Report):
    """Shared state; indexes are built in `work` from the vectors in `cache`."""

    data: Path
    cache: Path
    work: Path
    sizes: Sizes
    figures: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    indexes: dict[int, ColBERTIndex] = field(default_factory=dict)

    @cached_property
    def colbert(self) -> ColBERTModel:
        return ColBERTModel("starter", device="cpu")

    @cached_property
    def cross_encoder(self) -> CrossEncoderModel:
        return CrossEncoderModel("starter", device="cpu")

    @cached_property
    def pool(self) -> Pool:
        """The passages that are indexed."""
        return Pool(passages_of(self.data, "eval/scifact")[: self.sizes.passages])

    @cached_property
    def vectors(self) -> dict[str, NDArray[np.float16]]:
        """The vectors of the pool's passages by their text, *Shape:* (tokens, dim)."""
        texts = "\0".join(passage.text for passage in self.pool.passages)
        folder = self.cache / "passages" / hashlib.sha256(texts.encode()).hexdigest()[:24]
        self.tell(f"{len(self.pool.passages)} passages of scifact: encoding what {folder.parent} does not hold")
        encode = self.colbert.encode_documents
        store_vectors(folder, self.colbert.fingerprint, encode, self.pool.passages, np.float16)
        stored = open_vectors(folder).vectors
        return {passage.text: vectors for passage, vectors in zip(self.pool.passages, stored, strict=True)}

    def queries_with_candidates(self, count: int) -> list[CandidateQuery]:
        """Return queries whose candidates are all in the pool."""
        return queries_with_candidates(queries_of(self.data, "scifact"), self.pool, count, DEPTH)

    def index(self, nbits: int) -> ColBERTIndex:
        """Return the index of the pool; build it once per run."""
        if nbits not in self.indexes:
            path = self.work / f"index-{nbits}"
            with ColBERTIndex.create(path, given_vectors(self.colbert, self.vectors), nbits=nbits) as building:
                building.upsert(self.pool.passages, show_progress=False)
            opened = self.indexes[nbits] = ColBERTIndex.open(path, self.colbert, read_only=True)
            stats = opened.stats()
            self.tell(f"index of {nbits} bits: {stats.passages} passages, {stats.tokens} tokens, {stats.kind}")
            if stats.kind != "plaid":
                self.failures.append(f"the index of {nbits} bits is not compressed")
        return self.indexes[nbits]

    def close(self) -> None:
        for index in self.indexes.values():
            index.close()

    def small_index(self, passages: Sequence[Passage]) -> ColBERTIndex:
        """Return a temporary index of these passages of the pool, few enough that it keeps float16 vectors."""
        index = ColBERTIndex.create(None, given_vectors(self.colbert, self.vectors))
        index.upsert(passages, show_progress=False)
        if index.stats().kind != "exact":
            self.failures.append(f"the index of {len(passages)} passages is compressed")
        return index

    def in_turns(self, systems: Mapping[str, System], queries: Sequence[CandidateQuery]) -> dict[str, Taken]:
        """Let every system answer a query before the next query, so that noise hits them alike."""
        self.tell(f"{len(queries)} queries, each by {', '.join(systems)}")
        for system in systems.values():
            system(queries[0].first(_WARMING))()
        taken = {name: Taken([], []) for name in systems}
        for query in queries:
            for name, system in systems.items():
                call = system(query)
                start = time.perf_counter()
                answer = call()
                taken[name].ms.append((time.perf_counter() - start) * 1000)
                taken[name].answers.append(answer)
        return taken


@dataclass(frozen=True)
class Taken:
    """Seconds of a system for each query, and the ids that it returned, best first."""

    ms: list[float]
    answers: list[list[str]]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.ms)

    def overlap(self, other: Taken) -> float:
        """Return the mean share of the other system's best 10 among its own."""
        pairs = zip(self.answers, other.answers, strict=True)
        return statistics.fmean(len({*mine[:K]} & {*theirs[:K]}) / len(theirs[:K]) for mine, theirs in pairs)

    def same_places(self, other: Taken) -> float:
        """Return the mean share of the first 10 ranks at which both have the same passage."""
        pairs = zip(self.answers, other.answers, strict=True)
        return statistics.fmean(
            statistics.fmean(a == b for a, b in zip(mine[:K], theirs[:K], strict=True)) for mine, theirs in pairs
        )
