"""State that the parts of the index benchmark share: data, indexes, exact results, figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common.report import Report

from index_parts import ours
from index_parts.data import ADDED, Corpus, Floats, Queries, best, exact_scores


@dataclass(frozen=True)
class Sizes:
    """Numbers of passages for the comparison and for each step of growth; the last step is twice another one."""

    compared: int
    growth: tuple[int, ...]
    half: int

    @property
    def largest(self) -> int:
        return self.growth[-1]


FULL = Sizes(compared=8000, growth=(10_000, 30_000, 100_000), half=50_000)
# An index of fewer than 4,000 passages may not be compressed.
QUICK = Sizes(compared=4000, growth=(4000, 8000, 16_000), half=8000)


@dataclass
class Bench(Report):
    """Shared state; `corpus` ends with the passages to be added, if `adding`; indexes are built in `work`."""

    corpus: Corpus
    queries: Queries
    sizes: Sizes
    quick: bool
    adding: bool
    cache: Path
    work: Path
    figures: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    built: dict[tuple[int, int], ours.Built] = field(default_factory=dict)
    searched: dict[int, ours.Answers] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return int(self.queries.vectors[0].shape[1])

    @property
    def base(self) -> int:
        """The number of passages without those to be added."""
        return len(self.corpus.lengths) - ADDED * self.adding

    @cached_property
    def ranks(self) -> list[int]:
        return ours.ranks(self.base)

    @cached_property
    def warm(self) -> Path:
        """A small index for warming up."""
        path = self.work / "warm"
        ours.alone(ours.warm_index, path, self.dim, ours.WARM_TOKENS)
        return path

    @cached_property
    def scores(self) -> Floats:
        self.tell(f"exact MaxSim over {len(self.corpus.lengths)} passages")
        return exact_scores(self.corpus, self.queries)

    def exact(self, count: int, k: int) -> list[list[int]]:
        """Return the exact best `k` of the first `count` passages for every query."""
        return best(self.scores[:, :count], k)

    def index(self, count: int, nbits: int = 2) -> ours.Built:
        """Return the index of the first `count` passages; build it once per run."""
        if (count, nbits) not in self.built:
            self.tell(f"ours: building, {count} passages, {nbits} bits")
            path = self.work / f"ours-{count}-{nbits}"
            arguments = (path, self.corpus, count, self.dim, nbits, self.ranks)
            built = self.built[count, nbits] = ours.alone(ours.build, *arguments)
            if built.kind == "exact":
                self.tell(f"ours: the index of {count} passages is not compressed")
        return self.built[count, nbits]

    def search(
        self, path: Path, settings: list[ours.Setting], *, deep: bool = False, callers: bool = False
    ) -> ours.Searched:
        """Search an index for all queries, in a process of its own."""
        self.tell(f"ours: searching {path.name}")
        return ours.alone(_search, path, self.warm, self.queries, settings, deep, callers)


def _search(
    path: Path, warm: Path, queries: Queries, settings: list[ours.Setting], deep: bool, callers: bool
) -> ours.Searched:
    return ours.search(path, warm, queries, settings, deep=deep, callers=callers)
