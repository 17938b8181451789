"""The bi-encoder of a comparison: one vector per passage of an index, in memory, searched exactly."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np

from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.ranking import best_first, score_of_best
from rerank_integrations.core.types import Passage, Where
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.server.errors import problem_of

_logger = logging.getLogger("rerank_integrations.server")

# Few enough that a query does not wait long for a batch of passages.
_PASSAGES_PER_BATCH = 16
_PASSAGES_PER_READ = 256
# How long a comparison waits for passages that are not encoded yet; it then goes on without them.
_MAX_WAIT_SECONDS = 2.0

T = TypeVar("T")
State = Literal["preparing", "ready", "too_large", "failed"]


class TextEncoder(Protocol):
    """Protocol of a bi-encoder."""

    def encode(self, texts: list[str]) -> Sequence[Floats]:
        """Return one unit vector per text, *Shape:* (1, dim)."""
        ...

    def encode_query(self, text: str) -> Floats:
        """Return the unit vector of a query, *Shape:* (1, dim)."""
        ...


class BiEncoder:
    """A bi-encoder by its public name; its model is loaded at the first use.

    Parameters
    ----------
    name
        The name that clients see.
    model
        Name or path of any model that `sentence_transformers.SentenceTransformer` loads, ``starter`` for
        all-MiniLM-L6-v2, or an encoder of your own.

    Raises
    ------
    InvalidInputError
        If `model` is neither a name nor an encoder.
    """

    def __init__(self, name: str, model: str | TextEncoder) -> None:
        is_encoder = callable(getattr(model, "encode", None)) and callable(getattr(model, "encode_query", None))
        if not (isinstance(model, str) and model) and not is_encoder:
            what = repr(model) if isinstance(model, str) else f"of type {type(model).__name__}"
            raise InvalidInputError(
                f"the bi-encoder is {what}; expected a name, a path or an object with encode and encode_query"
            )
        self.name = name
        self._model = model
        # Its tokenizer has a state.
        self._lock = threading.Lock()

    def encode(self, texts: list[str]) -> Floats:
        """Return one vector per text; float32, *Shape:* (texts, dim)."""
        with self._lock:
            vectors: Floats = np.concatenate(list(self._loaded().encode(texts)), dtype=np.float32)
        return vectors

    def encode_query(self, text: str) -> Floats:
        """Return the vector of a query; float32, *Shape:* (dim,)."""
        with self._lock:
            vector: Floats = np.asarray(self._loaded().encode_query(text), dtype=np.float32)[0]
        return vector

    def _loaded(self) -> TextEncoder:
        if isinstance(self._model, str):
            from rerank_integrations.evaluation.vectors import PooledEncoder

            self._model = PooledEncoder(self._model, show_progress=False)
        return self._model


@dataclass(frozen=True)
class Progress:
    """How far the vectors of an index are.

    Parameters
    ----------
    state
        ``preparing`` until every passage has been encoded once; ``too_large`` and ``failed`` for good.
    encoded, passages
        Numbers of passages, of those that are known.
    """

    state: State
    encoded: int
    passages: int


@dataclass(frozen=True)
class _Vectors:
    """The vectors at one commit of the index; float32, *Shape:* (passages, dim)."""

    revision: object = None
    ids: Sequence[str] = ()
    rows: Floats = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    by_id: Mapping[str, tuple[bytes, Floats]] = field(default_factory=dict)

    def best(self, query: Floats, count: int, allowed: set[str] | None) -> list[tuple[str, float]]:
        if not self.ids:
            return []
        scores = (self.rows @ query).astype(np.float64)
        if allowed is not None:
            scores[[passage_id not in allowed for passage_id in self.ids]] = -np.inf
        last = score_of_best([scores], count)
        positions = [int(position) for position in np.flatnonzero((scores >= last) & np.isfinite(scores))]
        ids = [self.ids[position] for position in positions]
        order = best_first([float(scores[position]) for position in positions], ids, top_n=count)
        return [(ids[position], score) for position, score in order]


class DenseIndex:
    """The vectors of an index's passages, which follow its commits; all methods belong to one event loop.

    Parameters
    ----------
    max_passages
        An index with more is not encoded.
    """

    def __init__(self, index: ColBERTIndex, encoder: BiEncoder, max_passages: int) -> None:
        self._index, self._encoder, self._max_passages = index, encoder, max_passages
        self._vectors: _Vectors | None = None
        self._progress = Progress("preparing", 0, 0)
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def progress(self) -> Progress:
        """How far it is; also while it encodes."""
        return self._progress

    def refresh(self) -> asyncio.Task[None]:
        """Start to encode what is new, unless that is under way."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        return self._refreshing

    async def is_ready(self) -> bool:
        """Encode what is new, for a short time at most, and return whether `search` can answer."""
        await asyncio.wait({self.refresh()}, timeout=_MAX_WAIT_SECONDS)
        return self._vectors is not None and self._progress.state != "too_large"

    async def search(self, query: str, count: int, where: Where | None) -> list[tuple[str, float]]:
        """Return ids and cosines of the best passages, best first, equal ones by id."""
        assert self._vectors is not None
        return await run_blocking(self._search, self._vectors, query, count, where)

    async def close(self) -> None:
        """Stop encoding."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait({self._refreshing})

    def _search(self, vectors: _Vectors, query: str, count: int, where: Where | None) -> list[tuple[str, float]]:
        allowed = None if where is None else set(self._index.ids(where))
        return vectors.best(self._encoder.encode_query(query), count, allowed)

    async def _refresh(self) -> None:
        try:
            await self._encode_changes()
        except Exception as error:
            _logger.exception("the bi-encoder cannot encode an index")
            if problem_of(error).code != "index_unavailable":
                self._progress = Progress("failed", 0, self._progress.passages)

    async def _encode_changes(self) -> None:
        known = _Vectors() if self._vectors is None else self._vectors
        revision = await run_blocking(getattr, self._index, "revision")
        if self._vectors is not None and known.revision == revision:
            return
        count = await run_blocking(self._index.count)
        if count > self._max_passages:
            self._vectors, self._progress = None, Progress("too_large", 0, count)
            return
        state: State = "preparing" if self._vectors is None else "ready"
        self._progress = Progress(state, 0, count)
        by_id: dict[str, tuple[bytes, Floats]] = {}
        ids = await run_blocking(lambda: list(self._index.ids()))
        for batch in _batches(ids, _PASSAGES_PER_READ):
            passages = await run_blocking(self._index.get, batch)
            changed = [passage for passage in passages if known.by_id.get(passage.id, (b"",))[0] != _digest(passage)]
            by_id.update({passage.id: known.by_id[passage.id] for passage in passages if passage.id in known.by_id})
            for group in _batches(changed, _PASSAGES_PER_BATCH):
                rows = await run_blocking(self._encoder.encode, [passage.text for passage in group])
                by_id.update({passage.id: (_digest(passage), row) for passage, row in zip(group, rows, strict=True)})
                self._progress = Progress(state, min(count, len(by_id)), count)
        self._vectors = await run_blocking(_as_vectors, revision, by_id)
        self._progress = Progress("ready", len(by_id), len(by_id))


def _as_vectors(revision: object, by_id: Mapping[str, tuple[bytes, Floats]]) -> _Vectors:
    ids = list(by_id)
    if not ids:
        return _Vectors(revision)
    rows = np.stack([by_id[passage_id][1] for passage_id in ids])
    # Rows of the matrix, so that the vectors are in memory once.
    return _Vectors(revision, ids, rows, {key: (by_id[key][0], row) for key, row in zip(ids, rows, strict=True)})


def _digest(passage: Passage) -> bytes:
    return hashlib.blake2b(passage.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
