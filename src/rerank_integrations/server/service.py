"""The operations of the service by names of a closed list, without HTTP: every protocol calls these."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from typing_extensions import TypeIs

from rerank_integrations.core.checks import require_texts
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.concurrency.cancel import OutOfTimeError
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.fusion import require_search_type, require_weight
from rerank_integrations.core.index.storage.filters import compile_selection
from rerank_integrations.core.index.storage.validation import require_storable
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import ColBERTModel, TokenEncoder
from rerank_integrations.core.ranking import require_count
from rerank_integrations.core.reranking import (
    Candidate,
    CandidateScorer,
    Cascade,
    ColBERTScorer,
    Ranked,
    Reranker,
    as_candidate_scorer,
)
from rerank_integrations.core.reranking.explain import explain
from rerank_integrations.core.reranking.reranker import require_query
from rerank_integrations.core.token_vectors import encode_documents, encode_queries
from rerank_integrations.core.types import Hit, Passage, Scorer, SearchType, Where
from rerank_integrations.errors import IndexReadOnlyError, InvalidInputError
from rerank_integrations.server.batching import Batcher
from rerank_integrations.server.errors import UnknownIndexError, UnknownModelError, UnknownPassageError
from rerank_integrations.server.settings import ServerSettings

T = TypeVar("T")
Task = Literal["query", "document"]
RerankJob = tuple[str, Sequence[Candidate]]
RerankerLike = TokenEncoder | Scorer | CandidateScorer | Reranker | Cascade

# Called with the name of a queue, the number of requests of a batch and the number of its texts.
BatchObserver = Callable[[str, int, int], None]

_logger = logging.getLogger("rerank_integrations.server")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True)
class Search:
    """A search: the arguments of `ColBERTIndex.search`."""

    query: str
    k: int = 10
    where: Where | None = None
    ids: Sequence[str] | None = None
    exact: bool = False
    n_probe: int | None = None
    n_candidates: int | None = None
    search_type: SearchType = "colbert"
    bm25_weight: float | None = None

    @property
    def key(self) -> str | None:
        """The key of searches that `ColBERTIndex.search_many` does together; ``None`` for a search by itself."""
        if self.ids is not None or self.exact or self.n_probe is not None or self.n_candidates is not None:
            return None
        return json.dumps([self.k, self.where, self.search_type, self.bm25_weight], sort_keys=True)


class Service:
    """Indexes and models by name, and what clients may do with them.

    All methods belong to one event loop. None blocks it: models and indexes work on threads.

    Parameters
    ----------
    indexes
        Open indexes by name. Each is a reranker under the same name too: its model, with its stored vectors.
    rerankers
        Models, encoders, scorers or rerankers by name. The first one is the default, else the first index.
    settings
        Limits, and whether clients may write.
    on_batch
        Called before each batch.

    Raises
    ------
    InvalidInputError
        For a name of other characters than letters, digits, ``.``, ``_``, ``-`` and ``/``, a name of both an index and
        a reranker, an object of a wrong kind, or neither indexes nor rerankers.
    """

    def __init__(
        self,
        indexes: Mapping[str, ColBERTIndex],
        rerankers: Mapping[str, RerankerLike],
        settings: ServerSettings,
        on_batch: BatchObserver = lambda queue, requests, texts: None,
    ) -> None:
        _require_names(indexes, rerankers)
        self.settings = settings
        self.indexes: dict[str, ColBERTIndex] = dict(indexes)
        self.draining = False
        self.failure: BaseException | None = None
        self._warm = False
        self._writes: set[asyncio.Future[Any]] = set()
        self._write_turns = {name: asyncio.Lock() for name in indexes}
        self._scorers: dict[str, object] = dict(rerankers)
        self._rankers: dict[str, Reranker | Cascade] = {name: _ranker(item) for name, item in rerankers.items()}
        for name, index in indexes.items():
            self._scorers[name] = index.model
            self._rankers[name] = Reranker(ColBERTScorer(index.model, index))
        self._encoders: dict[str, TokenEncoder] = {
            name: item for name, item in self._scorers.items() if _is_encoder(item)
        }
        self._make_queues(on_batch)

    def _make_queues(self, on_batch: BatchObserver) -> None:
        most = self.settings.max_batch_texts
        self._reranking: dict[str, Batcher[RerankJob, list[Ranked]]] = {
            name: Batcher(
                functools.partial(_rank_jobs, ranker),
                size=lambda job: len(job[1]),
                max_size=most,
                on_batch=functools.partial(on_batch, f"rerank {name}"),
                name=f"rerank {name}",
            )
            for name, ranker in self._rankers.items()
        }
        self._searching: dict[str, Batcher[Search, list[Hit]]] = {
            name: Batcher(
                functools.partial(_search_jobs, index),
                size=lambda job: 1,
                max_size=most,
                on_batch=functools.partial(on_batch, f"search {name}"),
                name=f"search {name}",
            )
            for name, index in self.indexes.items()
        }
        self._encoding: dict[tuple[str, Task], Batcher[Sequence[str], list[Floats]]] = {
            (name, task): Batcher(
                functools.partial(_encode_jobs, encoder, task),
                size=len,
                max_size=most,
                on_batch=functools.partial(on_batch, f"encode {name}"),
                name=f"encode {name}",
            )
            for name, encoder in self._encoders.items()
            for task in _TASKS
        }

    @property
    def status(self) -> Literal["loading", "ready", "draining", "failed"]:
        """Whether the service wants requests: it does when it is ``ready``."""
        if self.draining:
            return "draining"
        if self.failure is not None:
            return "failed"
        return "ready" if self._warm else "loading"

    @property
    def models(self) -> list[str]:
        """The names of the models that rerank, the default first."""
        return list(self._rankers)

    @property
    def encoders(self) -> list[str]:
        """The names of the models that encode and explain, the default first."""
        return list(self._encoders)

    async def rerank(self, query: str, candidates: Sequence[Candidate], model: str | None = None) -> list[Ranked]:
        """Return the candidates that the reranker keeps, best first; ``None`` is the default model.

        Raises
        ------
        UnknownModelError
            If there is no such model.
        InvalidInputError
            For a query without text, or too many candidates.
        """
        name = _named(model, self._rankers, UnknownModelError)
        self._require_count(len(candidates), "documents")
        require_query(query)
        # An answer may repeat both, and a lone surrogate has no UTF-8.
        require_texts([candidate.text for candidate in candidates], "document")
        require_texts([candidate.id for candidate in candidates if candidate.id is not None], "document id")
        ranker = self._rankers[name]
        if not ranker.needs_thread:
            # It waits for another service, which makes batches of its own: waiting here as well would only take longer.
            return await ranker.arank(query, candidates)
        return await self._reranking[name].submit((query, candidates))

    async def search(self, search: Search, index: str | None = None) -> list[Hit]:
        """Return the best passages of an index; ``None`` is the only one.

        Raises
        ------
        UnknownIndexError
            If there is no such index.
        InvalidInputError
            For a bad filter or number, or without `index` where there are several.
        """
        name = self.index_name(index)
        if search.k > self.settings.max_k:
            raise InvalidInputError(f"k is {search.k}; expected at most {self.settings.max_k}")
        require_count(search.k, "k")
        # Before it is part of a batch, which would be computed again without it.
        compile_selection(search.where, search.ids)
        require_weight(search.bm25_weight, require_search_type(search.search_type))
        return await self._searching[name].submit(search)

    async def search_and_rerank(
        self, search: Search, reranker: str | None = None, top_n: int | None = None, index: str | None = None
    ) -> list[Hit]:
        """Search, and return the best `top_n` hits in the order and with the scores of a reranker if it is named.

        Raises
        ------
        UnknownIndexError, UnknownModelError
            If there is no such index or reranker.
        InvalidInputError
            For a bad search, or `top_n` without a reranker.
        """
        if top_n is not None and reranker is None:
            raise InvalidInputError(f"top_n is {top_n} without a reranker; expected k alone, or both")
        hits = await self.search(search, index)
        if reranker is None:
            return hits
        ranked = await self.rerank(search.query, [Candidate(hit.id, hit.text, hit.score) for hit in hits], reranker)
        return [
            Hit(hits[item.place].id, item.score, rank, hits[item.place].text, hits[item.place].metadata, item.note)
            for rank, item in enumerate(ranked[:top_n], start=1)
        ]

    async def encode(self, texts: Sequence[str], task: Task, model: str | None = None) -> list[Floats]:
        """Return the token vectors of each text; float32, *Shape:* (tokens, dim).

        Raises
        ------
        UnknownModelError
            If no model of this name encodes.
        """
        name = _named(model, self._encoders, UnknownModelError)
        self._require_count(len(texts), "texts")
        return await self._encoding[name, task].submit(texts) if texts else []

    async def explain(self, query: str, text: str, model: str | None = None) -> dict[str, Any]:
        """Return the explanation of a text's score as `Explanation.to_dict`, under the public name of the model."""
        name = _named(model, self._encoders, UnknownModelError)
        explanation = await run_blocking(explain, query, text, self._encoders[name])
        words = await run_blocking(explanation.to_dict)
        return {**words, "model": name}

    async def get(
        self,
        index: str | None = None,
        *,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Passage]:
        """Return stored passages by ids or by a filter, at most ``max_texts``; arguments as `ColBERTIndex.get`."""
        opened = self.indexes[self.index_name(index)]
        if ids is not None:
            self._require_count(len(ids), "ids")
        else:
            limit = self.settings.max_texts if limit is None else limit
            self._require_count(limit, "passages")
        return await run_blocking(opened.get, ids, where=where, limit=limit, offset=offset)

    async def passage(self, passage_id: str, index: str | None = None) -> Passage:
        """Return one stored passage, or raise `UnknownPassageError`."""
        passages = await self.get(index, ids=[passage_id])
        if not passages:
            raise UnknownPassageError(f"the index {self.index_name(index)!r} stores no passage with this id")
        return passages[0]

    async def upsert(self, passages: Sequence[Passage], index: str | None = None) -> list[str]:
        """Store passages, or replace those of the same id; they are committed when this returns.

        Raises
        ------
        IndexReadOnlyError
            Unless the service is writable.
        InvalidInputError
            For a passage that cannot be stored; then none is.
        """
        self._require_count(len(passages), "passages")
        opened = self._writable(index)
        await run_blocking(_require_all_storable, passages)
        return await self._write(
            self.index_name(index), functools.partial(opened.upsert, show_progress=False), passages
        )

    async def delete(
        self, index: str | None = None, *, ids: Sequence[str] | None = None, where: Where | None = None
    ) -> int:
        """Remove passages in one commit, by ids or by a filter, and return how many; errors as for `upsert`."""
        opened = self._writable(index)
        return await self._write(self.index_name(index), functools.partial(opened.delete, where=where), ids)

    async def counts(self) -> dict[str, int]:
        """Return the number of passages of each index."""
        return {name: await run_blocking(index.count) for name, index in self.indexes.items()}

    def index_name(self, index: str | None) -> str:
        """Return the name of an index of the service; ``None`` is the only one.

        Raises
        ------
        UnknownIndexError
            If there is no such index.
        InvalidInputError
            Without a name where there are several.
        """
        if index is None and len(self.indexes) > 1:
            raise InvalidInputError(f"no index is named; expected one of {sorted(self.indexes)}")
        return _named(index, self.indexes, UnknownIndexError)

    def message_of(self, error: Exception) -> str:
        """Return an error's message, with public names for paths, and why a call takes long while models are loaded."""
        is_loading = isinstance(error, OutOfTimeError) and self.status == "loading"
        return self._without_paths(str(error)) + ("; the models are still being loaded" if is_loading else "")

    def _without_paths(self, message: str) -> str:
        paths = {str(index.path): name for name, index in self.indexes.items()}
        paths |= {str(index.path.resolve()): name for name, index in self.indexes.items()}
        paths |= {str(getattr(scorer, "name", name)): name for name, scorer in self._scorers.items()}
        # The longest first, since one path may begin with another. A name like "starter" is a word of texts too.
        for path in sorted((path for path in paths if "/" in path), key=len, reverse=True):
            message = message.replace(path, paths[path])
        return message

    async def warm_up(self) -> None:
        """Load every model and compile what searches run; an error is stored as `failure` and logged."""
        try:
            if self.settings.warm_up:
                await run_blocking(self._warm_up)
            self._warm = True
        except Exception as error:
            self.failure = error
            _logger.exception("the service cannot start")

    def _warm_up(self) -> None:
        for index in self.indexes.values():
            index.warm_up()
        for ranker in self._rankers.values():
            # Not a service that another process runs: this one starts whether or not that is up, and sends it nothing.
            if ranker.needs_thread or isinstance(ranker, Cascade):
                ranker.rank("0", [Candidate(None, "0")])

    async def close(self) -> None:
        """Wait for writes that have begun, and close the indexes."""
        if self._writes:
            await asyncio.wait(self._writes)
        for index in self.indexes.values():
            await run_blocking(index.close)

    def _writable(self, index: str | None) -> ColBERTIndex:
        opened = self.indexes[self.index_name(index)]
        if not self.settings.writable:
            raise IndexReadOnlyError("the service is not writable")
        return opened

    async def _write(self, name: str, change: Callable[..., T], argument: object) -> T:
        """Make a change once it is its turn. A cancelled one leaves the queue; one that has begun is finished."""
        async with self._write_turns[name]:
            writing = asyncio.ensure_future(run_blocking(change, argument))
            self._writes.add(writing)
            writing.add_done_callback(self._writes.discard)
            # If the caller is gone, nobody else asks for the error.
            writing.add_done_callback(_log_unseen_error)
            return await asyncio.shield(writing)

    def _require_count(self, count: int, what: str) -> None:
        if count > self.settings.max_texts:
            raise InvalidInputError(f"{count} {what}; expected at most {self.settings.max_texts}")


_TASKS: tuple[Task, Task] = ("query", "document")


def _rank_jobs(ranker: Reranker | Cascade, jobs: Sequence[RerankJob]) -> list[list[Ranked]]:
    return ranker.rank_many([query for query, _ in jobs], [candidates for _, candidates in jobs])


def _search_jobs(index: ColBERTIndex, jobs: Sequence[Search]) -> list[list[Hit]]:
    """Return the hits of each search; those that differ in the query alone are one call."""
    hits: list[list[Hit]] = [[] for _ in jobs]
    together: dict[str, list[int]] = {}
    for position, job in enumerate(jobs):
        together.setdefault(f"alone {position}" if job.key is None else job.key, []).append(position)
    for positions in together.values():
        job = jobs[positions[0]]
        if job.key is None:
            hits[positions[0]] = index.search(
                job.query,
                job.k,
                where=job.where,
                ids=job.ids,
                exact=job.exact,
                n_probe=job.n_probe,
                n_candidates=job.n_candidates,
                search_type=job.search_type,
                bm25_weight=job.bm25_weight,
            )
        else:
            found = index.search_many(
                [jobs[position].query for position in positions],
                job.k,
                where=job.where,
                search_type=job.search_type,
                bm25_weight=job.bm25_weight,
            )
            for position, of_query in zip(positions, found, strict=True):
                hits[position] = of_query
    return hits


def _encode_jobs(encoder: TokenEncoder, task: Task, jobs: Sequence[Sequence[str]]) -> list[list[Floats]]:
    texts = list(itertools.chain.from_iterable(jobs))
    encode = encode_queries if task == "query" else encode_documents
    vectors = iter(encode(encoder, texts))
    return [list(itertools.islice(vectors, len(job))) for job in jobs]


def _require_all_storable(passages: Iterable[Passage]) -> None:
    for passage in passages:
        require_storable(passage)


def _log_unseen_error(writing: asyncio.Future[Any]) -> None:
    if not writing.cancelled() and writing.exception() is not None:
        _logger.debug("a write failed", exc_info=writing.exception())


def _require_names(indexes: Mapping[str, ColBERTIndex], rerankers: Mapping[str, object]) -> None:
    if not indexes and not rerankers:
        raise InvalidInputError("neither indexes nor rerankers; expected at least one")
    for name, index in indexes.items():
        if not isinstance(index, ColBERTIndex):
            raise InvalidInputError(
                f"the index {name!r} is of type {type(index).__name__}; expected an open ColBERTIndex"
            )
    for name in (*indexes, *rerankers):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError(f"the name {name!r}; expected letters, digits, '.', '_', '-' and '/'")
    if shared := sorted(set(indexes) & set(rerankers)):
        raise InvalidInputError(f"{shared[0]!r} is the name of an index and of a reranker; expected names that differ")


def _ranker(item: RerankerLike) -> Reranker | Cascade:
    if isinstance(item, Reranker | Cascade):
        return item
    return Reranker(ColBERTScorer(item) if _is_encoder(item) else as_candidate_scorer(item))


def _is_encoder(item: object) -> TypeIs[TokenEncoder]:
    # The class first: before Python 3.12 the check of a protocol reads its properties, which would load the model.
    return isinstance(item, ColBERTModel) or isinstance(item, TokenEncoder)  # noqa: SIM101


def _named(name: str | None, known: Mapping[str, object], error: type[Exception]) -> str:
    """Return `name`, or the first of `known` for ``None``."""
    if name is None and known:
        return next(iter(known))
    if name is None or name not in known:
        raise error(f"{name!r} is not served; expected one of {sorted(known)}")
    return name
