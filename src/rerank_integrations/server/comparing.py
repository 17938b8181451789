"""Comparison of three generations of search on one query: bi-encoder, cross-encoder over candidates, ColBERT."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.reranking import Candidate, Ranked
from rerank_integrations.core.reranking.reranker import require_query
from rerank_integrations.core.types import Passage, Where
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.server.bi_encoder import BiEncoder, DenseIndex, Progress
from rerank_integrations.server.errors import UnknownModelError
from rerank_integrations.server.service import Search, Service

T = TypeVar("T")
Generation = Literal["bi-encoder", "cross-encoder", "colbert"]
GENERATIONS: tuple[Generation, ...] = get_args(Generation)

# As many as the rerankers of `evaluate` read.
_CANDIDATES = 50
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Stage:
    """A stage of a generation: ``retrieve`` or ``rerank``, in milliseconds, the wait in the service's queues included.

    `passages` is how many it returned or scored.
    """

    name: Literal["retrieve", "rerank"]
    ms: float
    passages: int


@dataclass(frozen=True)
class Column:
    """The result of one generation.

    Parameters
    ----------
    generation
        Which one.
    model
        The public name of its model; ``None`` where the service has none.
    ranking
        Ids with scores, best first, as deep as the candidates; empty if `reason` is given.
    stages
        Where the time went; ``retrieve`` of the cross-encoder is the search that found its candidates.
    score_scale
        The scale of the scores: ``cosine``, or those of the package.
    candidates_from
        The generation that found the candidates of the cross-encoder.
    reason
        Why there is no ranking, as a sentence for the user.
    progress
        How far the bi-encoder is with the passages of the index.
    warnings
        Sentences on what was cut.
    """

    generation: Generation
    model: str | None = None
    ranking: Sequence[tuple[str, float]] = ()
    stages: Sequence[Stage] = ()
    score_scale: str | None = None
    candidates_from: Generation | None = None
    reason: str | None = None
    progress: Progress | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """The three generations of search on one query, each `depth` passages deep, and what any of them found, by id."""

    index: str
    columns: Sequence[Column]
    depth: int
    passages: Mapping[str, Passage] = field(default_factory=dict)

    def ranks(self) -> dict[Generation, dict[str, int]]:
        """Return the rank of each passage, from 1, for the generations that have a ranking."""
        return {
            column.generation: {key: rank for rank, (key, _) in enumerate(column.ranking, start=1)}
            for column in self.columns
            if column.reason is None
        }


class Comparer:
    """The comparison over the indexes and rerankers of a service; all methods belong to one event loop.

    Parameters
    ----------
    service
        Its ColBERT searches and its rerankers are two of the generations.
    bi_encoder
        The third; ``None`` leaves it out.
    """

    def __init__(self, service: Service, bi_encoder: BiEncoder | None = None) -> None:
        self._service = service
        self.bi_encoder = bi_encoder
        most = service.settings.max_bi_encoder_passages
        self._dense: dict[str, DenseIndex] = {}
        if bi_encoder is not None:
            self._dense = {name: DenseIndex(index, bi_encoder, most) for name, index in service.indexes.items()}

    @property
    def rerankers(self) -> list[str]:
        """The names of the rerankers that a comparison takes, the default first: no ColBERT model is among them."""
        encoders = set(self._service.encoders)
        return [name for name in self._service.models if name not in encoders]

    def progress(self, index: str) -> Progress | None:
        """Return how far the bi-encoder is with an index; ``None`` without one."""
        return self._dense[index].progress if index in self._dense else None

    def colbert_name(self, index: str) -> str:
        """Return the name of an index's model if it is one of the hub's or ``starter``, else that of the index."""
        name = self._service.indexes[index].model.name
        return name if _HUB_NAME.fullmatch(name) and not Path(name).exists() else index

    def prepare(self) -> None:
        """Begin to encode the passages of all indexes by the bi-encoder."""
        for dense in self._dense.values():
            dense.refresh()

    async def close(self) -> None:
        """Stop encoding."""
        await asyncio.gather(*(dense.close() for dense in self._dense.values()))

    async def compare(
        self,
        query: str,
        index: str | None = None,
        *,
        k: int = 10,
        candidates: int | None = None,
        where: Where | None = None,
        reranker: str | None = None,
    ) -> Comparison:
        """Search by all generations, one after another, so that each is timed by itself.

        Parameters
        ----------
        index
            Its name; ``None`` is the only one.
        k
            How many hits the caller shows of each.
        candidates
            How many passages the cross-encoder reads; by default 50, or fewer where the settings allow fewer. The
            others rank as many, or `k` if that is more.
        reranker
            Name of the cross-encoder; ``None`` is the first.

        Raises
        ------
        InvalidInputError
            For a query without text, a bad filter or number, or no name where there are several indexes.
        UnknownIndexError, UnknownModelError
            If there is no such index or reranker.
        """
        name = self._service.index_name(index)
        require_query(query)
        if reranker is not None and reranker not in self.rerankers:
            raise UnknownModelError(f"{reranker!r} is not a reranker of the service; expected one of {self.rerankers}")
        settings = self._service.settings
        # The candidates are hits of a search, and texts to rerank.
        most = min(settings.max_k, settings.max_texts)
        count = min(_CANDIDATES, most) if candidates is None else candidates
        if count > most:
            raise InvalidInputError(f"candidates is {count}; expected at most {most}")
        depth = max(k, count)
        dense = await self._by_bi_encoder(query, name, depth, where)
        colbert, passages = await self._by_colbert(query, name, depth, where)
        missing = [key for key, _ in dense.ranking if key not in passages]
        if missing:
            passages |= {passage.id: passage for passage in await self._passages(name, missing)}
        first = colbert if dense.reason is not None else dense
        reranked = await self._by_cross_encoder(query, first, passages, count, reranker)
        return Comparison(name, [dense, reranked, colbert], depth, passages)

    async def _by_bi_encoder(self, query: str, index: str, depth: int, where: Where | None) -> Column:
        if self.bi_encoder is None:
            return Column("bi-encoder", reason="This server has no bi-encoder. Start it with --bi-encoder starter.")
        dense, model = self._dense[index], self.bi_encoder.name
        if not await dense.is_ready():
            return Column("bi-encoder", model, reason=_reason(dense.progress), progress=dense.progress)
        ranking, ms = await _timed(dense.search(query, depth, where))
        stages = [Stage("retrieve", ms, len(ranking))]
        return Column("bi-encoder", model, ranking, stages, "cosine", progress=dense.progress)

    async def _by_colbert(
        self, query: str, index: str, depth: int, where: Where | None
    ) -> tuple[Column, dict[str, Passage]]:
        hits, ms = await _timed(self._service.search(Search(query, depth, where), index))
        ranking = [(hit.id, hit.score) for hit in hits]
        column = Column("colbert", self.colbert_name(index), ranking, [Stage("retrieve", ms, len(hits))], "maxsim_sum")
        return column, {hit.id: Passage(hit.id, hit.text, hit.metadata) for hit in hits}

    async def _by_cross_encoder(
        self, query: str, first: Column, passages: Mapping[str, Passage], count: int, reranker: str | None
    ) -> Column:
        if not self.rerankers:
            reason = "This server has no cross-encoder. Start it with --reranker starter."
            return Column("cross-encoder", reason=reason)
        model = self.rerankers[0] if reranker is None else reranker
        # A passage may have been deleted meanwhile.
        found = [(key, score) for key, score in first.ranking[:count] if key in passages]
        candidates = [Candidate(key, passages[key].text, score) for key, score in found]
        ranked, ms = await _timed(self._service.rerank(query, candidates, model))
        return Column(
            "cross-encoder",
            model,
            [(found[item.place][0], item.score) for item in ranked],
            [*first.stages, Stage("rerank", ms, len(candidates))],
            ranked[0].note.get("score_scale") if ranked else None,
            candidates_from=first.generation,
            warnings=_cut(ranked),
        )

    async def _passages(self, index: str, ids: Sequence[str]) -> list[Passage]:
        return await run_blocking(self._service.indexes[index].get, ids)


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = await work
    return result, 1000 * (time.perf_counter() - started)


def _reason(progress: Progress) -> str:
    if progress.state == "too_large":
        return f"The index has {progress.passages:,} passages, too many for the bi-encoder of this server."
    if progress.state == "failed":
        return "The bi-encoder cannot be used; the log of the server says why."
    return "The bi-encoder is still encoding the passages of this index."


def _cut(ranked: Sequence[Ranked]) -> list[str]:
    cut = sum(bool(item.note.get("truncated")) for item in ranked)
    return [f"{cut} of {len(ranked)} passages were longer than the model reads, and cut."] if cut else []
