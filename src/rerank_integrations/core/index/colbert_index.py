"""`ColBERTIndex`: passages and their token vectors on disk, searched by MaxSim."""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rerank_integrations.core import telemetry
from rerank_integrations.core.checks import require_texts
from rerank_integrations.core.concurrency.forks import forks_held_off
from rerank_integrations.core.index.compaction import compile_now, start_compiling_early
from rerank_integrations.core.index.folder import index_folder, make_folder, release, require_free
from rerank_integrations.core.index.fusion import DEFAULT_BM25_WEIGHT, HybridParts, require_search_type, require_weight
from rerank_integrations.core.index.inspect import IndexStats, VerifyReport, collect_stats, verify_index
from rerank_integrations.core.index.model_record import document_length, model_record, recorded_model, require_model
from rerank_integrations.core.index.plaid.search_options import SearchOptions, search_device
from rerank_integrations.core.index.reader import Reader, TextIndexMissingError
from rerank_integrations.core.index.storage import lock
from rerank_integrations.core.index.storage.catalog import FILENAME, Catalog
from rerank_integrations.core.index.storage.catalog_rules import (
    BM25_WEIGHT,
    POOL_FACTOR,
    recorded_bm25_weight,
    recorded_pool_factor,
)
from rerank_integrations.core.index.storage.filters import Sql, compile_selection
from rerank_integrations.core.index.storage.refusals import is_file
from rerank_integrations.core.index.storage.validation import filter_alone, id_list, ids_alone
from rerank_integrations.core.index.writer import Writer
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import ColBERTModel, TokenEncoder, as_colbert_model
from rerank_integrations.core.models.checkpoints.options import portable
from rerank_integrations.core.ranking import require_count, require_text
from rerank_integrations.core.token_pooling import pool_factor_text, require_pool_factor
from rerank_integrations.core.token_vectors import encode_queries, encoded_query
from rerank_integrations.core.types import Hit, Passage, PassageLike, SearchType
from rerank_integrations.errors import (
    IndexClosedError,
    IndexExistsError,
    IndexFormatError,
    IndexLockedError,
    IndexReadOnlyError,
    InvalidInputError,
    ModelMismatchError,
)

T = TypeVar("T")

_NBITS = (1, 2, 4)


class ColBERTIndex:
    """An index on disk; `create` and `open` make one.

    It has one writer at a time and any number of readers, in this process and in others. A reader sees each new commit
    at its next call. Every method may be called from any thread. If the process is killed at any moment, the last
    commit stands.
    """

    def __init__(
        self,
        path: Path,
        model: TokenEncoder,
        catalog: Catalog,
        writer_lock: lock.WriterLock | None,
        *,
        temporary: bool,
    ) -> None:
        """Wrap the open catalog and lock of an index; `create` and `open` call this."""
        self._path = path
        self._model = model
        self._catalog = catalog
        self._reader = Reader(path, catalog)
        self._writer = None if writer_lock is None else Writer(path, catalog, writer_lock)
        self._write_lock = threading.RLock()
        self._model_checked = False
        self._dim_checked = False
        self._pid = os.getpid()
        self._release = weakref.finalize(self, release, catalog, writer_lock, path if temporary else None, os.getpid())
        if writer_lock is not None:
            self._opened_at = _caller()
            _WRITERS[_identity(path)] = self

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        model: str | Path | TokenEncoder,
        *,
        nbits: int = 2,
        pool_factor: float = 1,
        overwrite: bool = False,
    ) -> ColBERTIndex:
        """Create an empty index and open it for writing.

        Parameters
        ----------
        path
            A folder, made if absent; ``None`` for a temporary one that is removed at `close`.
        model
            A `ColBERTModel`, or the name or path of one.
        nbits
            Bits per dimension of a compressed token vector: 1, 2 or 4. Past some 4,000 passages all vectors are
            compressed.
        pool_factor
            Token pooling: a passage keeps about 1 / `pool_factor` of its token vectors, the means of similar ones. From
            1, which keeps them all, to 100; 2 costs little precision. The model's vectors must have length 1.
        overwrite
            Empty the index that stands at `path`, in one transaction. Anything else there is left alone.

        Raises
        ------
        IndexExistsError
            If an index stands there and `overwrite` is false.
        IndexFormatError
            If the folder holds something that is not an index.
        IndexLockedError
            If another writer has it.
        """
        if type(nbits) is not int or nbits not in _NBITS:
            raise InvalidInputError(f"nbits is {nbits!r}; expected 1, 2 or 4")
        factor = require_pool_factor(pool_factor)
        encoder: TokenEncoder = as_colbert_model(model)
        if path is not None:
            require_free(index_folder(path), overwrite)
        meta = {"model": model_record(encoder), "fingerprint": encoder.fingerprint, "nbits": str(nbits)}
        if factor > 1:
            meta[POOL_FACTOR] = pool_factor_text(factor)
        folder = make_folder(path)
        writer_lock = _writer_lock(folder)
        catalog = Catalog(folder / FILENAME, read_only=False)
        try:
            # Again under the lock: two processes may have come this far.
            require_free(folder, overwrite)
            catalog.create(meta)
            index = cls(folder, encoder, catalog, writer_lock, temporary=path is None)
            Writer(folder, catalog, writer_lock).sweep()
        except BaseException:
            release(catalog, writer_lock, folder if path is None else None, os.getpid())
            raise
        index._model_checked = True
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | Path | TokenEncoder | None = None,
        *,
        read_only: bool = False,
    ) -> ColBERTIndex:
        """Open an existing index; reads the catalog, loads no model.

        Parameters
        ----------
        path
            The index's folder.
        model
            The model that made the index; by default the recorded one is loaded at the first search. A model that is
            recorded as a path, or with more than plain options, must be passed: without it searching raises
            `CheckpointError`.
        read_only
            Take no writer's lock: for searching beside a writer, and on read-only media.

        Raises
        ------
        IndexFormatError
            If `path` is not an index, or is damaged.
        ModelMismatchError
            If `model` is not the one that made the index.
        IndexLockedError
            If another writer has it, unless `read_only`.
        """
        folder = index_folder(path)
        if not is_file(folder / FILENAME):
            raise IndexFormatError(f"{folder} is not an index: it holds no {FILENAME}")
        writer_lock = None if read_only else _writer_lock(folder)
        catalog = Catalog(folder / FILENAME, read_only=read_only)
        try:
            with catalog.read() as transaction:
                meta = transaction.meta()
                start_compiling_early(transaction, meta)
            encoder = recorded_model(meta, folder) if model is None else as_colbert_model(model)
            index = cls(folder, encoder, catalog, writer_lock, temporary=False)
            if model is not None:
                index._check_model()
            # After the check of the model: where it is refused, an older version can still open the index.
            catalog.upgrade()
            if index._writer is not None:
                index._writer.sweep()
        except BaseException:
            release(catalog, writer_lock, None, os.getpid())
            raise
        return index

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        model: str | Path | TokenEncoder,
        *,
        nbits: int | None = None,
        pool_factor: float | None = None,
    ) -> ColBERTIndex:
        """Open the index at `path` for writing, or create an empty one, for code that runs more than once.

        Where this process has it open for writing already, that same object is returned, so that a notebook's cell can
        be run again. Closing it closes it for everyone who uses it.

        Parameters
        ----------
        path
            The index's folder, made if absent.
        model
            The model that made the index, or is to make it: a `ColBERTModel`, or the name or path of one.
        nbits
            As in `create`. For an existing index it must be the number that it was made with; ``None`` accepts any, and
            is 2 for a new index.
        pool_factor
            As in `create`. For an existing index it must be the factor that it was made with; ``None`` accepts any, and
            is 1 for a new index.

        Raises
        ------
        IndexFormatError
            If the folder holds something that is not an index, or a damaged one.
        IndexLockedError
            If another process has it open for writing, or this process has, with other options of the model.
        InvalidInputError
            If `nbits` or `pool_factor` differs from that of the index.
        ModelMismatchError
            If `model` is not the one that made the index.
        """
        encoder: TokenEncoder = as_colbert_model(model)
        folder = index_folder(path)
        # Before other threads have to wait, since it may load the model.
        fingerprint = encoder.fingerprint
        with forks_held_off(), _opening:
            try:
                try:
                    new_factor = 1 if pool_factor is None else pool_factor
                    return cls.create(folder, encoder, nbits=2 if nbits is None else nbits, pool_factor=new_factor)
                except IndexExistsError:
                    index, is_new = cls.open(folder, encoder), True
            except IndexLockedError:
                # Looked up after the attempt, since the folder of an open index may have been removed and made again.
                open_already = _open_writer(folder)
                if open_already is None:
                    raise
                open_already._require_not_moved_to(folder)
                index, is_new = open_already, False
            try:
                index._require_same_model(encoder, fingerprint)
                index._require_recorded(nbits, pool_factor)
            except BaseException:
                if is_new:
                    index.close()
                raise
            return index

    @property
    def path(self) -> Path:
        """The index's folder."""
        return self._path

    @property
    def model(self) -> TokenEncoder:
        """The model that encodes for this index."""
        return self._model

    def upsert(self, passages: Iterable[PassageLike], *, show_progress: bool | None = None) -> list[str]:
        """Add passages, or replace those of the same id; searchable when this returns.

        Parameters
        ----------
        passages
            Strings, `Passage`s or mappings with ``text`` and optionally ``id`` and ``metadata``; any iterable, read
            in chunks. A passage whose text is stored already is not encoded again.
        show_progress
            Whether to show a progress bar; by default only on a terminal.

        Returns
        -------
        list of str
            The id of each passage, in their order. The last passage of equal ids in one call stays.

        Raises
        ------
        InvalidInputError
            For a passage or metadata of a wrong kind. Each 256 passages are one commit: none of the 256 with the bad
            one is stored, earlier ones stay.
        IndexReadOnlyError, IndexWriteError
            If the index is not open for writing, or the disk is full.
        """
        writer = self._require_writer()
        with self._write_lock:
            self._check_model()
            with telemetry.working("ColBERTIndex.upsert") as span:
                return span.stored(writer.upsert(passages, self._model, show_progress))

    def delete(self, ids: Iterable[str] | None = None, *, where: Mapping[str, Any] | None = None) -> int:
        """Remove passages by their ids or by a filter, in one commit.

        Parameters
        ----------
        ids
            Unknown ids are ignored.
        where
            A filter as in `search`: ``{"source": "a.pdf"}``. ``{}`` removes every passage.

        Returns
        -------
        int
            How many passages were removed.

        Raises
        ------
        InvalidInputError
            For a bad filter, or unless exactly one of `ids` and `where` is given: a call without either does not empty
            the index.
        IndexReadOnlyError, IndexWriteError
            If the index is not open for writing, or the disk is full.
        """
        writer = self._require_writer()
        if ids is None:
            select = compile_selection(filter_alone("delete", where), None)
            with self._write_lock:
                return writer.delete_where(select)
        wanted = ids_alone("delete", ids, where)
        with self._write_lock:
            return writer.delete(wanted) if wanted else 0

    def compact(self) -> None:
        """Free the space of deleted and replaced passages, and join small segments; results do not change."""
        writer = self._require_writer()
        with self._write_lock:
            writer.compact()

    def warm_up(self) -> None:
        """Load the model and have the search loops compiled now, which a first search does otherwise.

        docs/explanation/plaid.md says what a first search waits for.
        """
        self._require_open()
        compile_now(self._catalog, self._path)
        self.search("0", 1)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        ids: Iterable[str] | None = None,
        exact: bool = False,
        n_probe: int | None = None,
        n_candidates: int | None = None,
        search_type: SearchType = "colbert",
        bm25_weight: float | None = None,
    ) -> list[Hit]:
        """Return the best passages for a query.

        Parameters
        ----------
        query
            A query of white space alone has no results.
        k
            How many passages to return, at least 0.
        where
            A Mongo-style filter on metadata, applied before anything is scored: ``{"year": {"$gte": 2023}}``; with
            ``$eq $ne $gt $gte $lt $lte $in $nin $contains $exists $and $or $not``.
        ids
            Search only these passages; unknown ids are ignored.
        exact
            Score every passage. An index that is not compressed always does.
        n_probe
            Centroids per query token, whose passages become candidates; more centroids find more, and take longer. By
            default every passage is a candidate while the passages have few enough tokens.
        n_candidates
            How many candidates to keep by their centroids; by default 160, or more for a large index, 4 bits or a large
            `k`.
        search_type
            ``"colbert"``, MaxSim of token vectors; ``"bm25"``, the query's words, without the model; ``"hybrid"``, both
            (docs/how-to/hybrid_search.md).
        bm25_weight
            BM25's share of a hybrid score, 0 to 1; by default `bm25_weight`, the index's own.

        Returns
        -------
        list of Hit
            Exactly ``min(k, passages that satisfy where and ids)``, best first, equal scores by id; for ``"bm25"``
            only passages with a word of the query. A hit of ``"bm25"`` or ``"hybrid"`` has a note, with both scores.

        Raises
        ------
        InvalidInputError
            For a bad `k`, filter or `query` type, and for a weight of a search that is not hybrid.
        IndexReadOnlyError
            If BM25 needs the text index, an older version made the index without one, and it is open for reading alone.
        ModelMismatchError
            If the model is not the one that made the index.
        """
        require_texts([query], "query")
        kind = _Kind(search_type, bm25_weight)
        options = SearchOptions(n_probe, n_candidates, exact)
        with telemetry.retrieving("ColBERTIndex.search", [query], k, self._path) as span:
            return span.found(self._search([query], k, where, ids, options, kind))[0]

    def search_many(
        self,
        queries: Iterable[str],
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        search_type: SearchType = "colbert",
        bm25_weight: float | None = None,
    ) -> list[list[Hit]]:
        """Search for several queries at once, one list per query; encodes in batches, and reads the vectors once."""
        if isinstance(queries, str | bytes | Mapping) or not isinstance(queries, Iterable):
            raise InvalidInputError(f"queries is one {type(queries).__name__}; expected a list of strings")
        texts = list(queries)
        require_texts(texts, "query")
        kind = _Kind(search_type, bm25_weight)
        with telemetry.retrieving("ColBERTIndex.search_many", texts, k, self._path) as span:
            return span.found(self._search(texts, k, where, None, SearchOptions(), kind))

    def rerank(self, query: str, ids: Iterable[str], k: int | None = None) -> list[Hit]:
        """Rank stored passages by their stored vectors; only the query is encoded.

        Parameters
        ----------
        query
            Must have more than white space.
        ids
            The passages to rank; unknown ids are ignored.
        k
            How many to return; ``None`` for all.
        """
        require_text(query, "query")
        require_texts([query], "query")
        if k is not None:
            require_count(k, "k")
        wanted = id_list(ids)
        self._require_open()
        if not wanted or k == 0:
            return []
        self._check_model()
        with telemetry.reranking("ColBERTIndex.rerank", [query], [], self._model, k) as span:
            (vectors,) = self._encode_queries([query])
            hits = self._reader.rerank(vectors, wanted, k, self._model.fingerprint, search_device(self._model))
            return span.found([hits], telemetry.KEPT)[0]

    def score_stored(self, query: Floats, ids: Iterable[str]) -> dict[str, Hit]:
        """Score stored passages by a query that is encoded already.

        Parameters
        ----------
        query
            The query's token vectors by `model`; float32, *Shape:* (tokens, dim).
        ids
            The passages to score; unknown ids are absent from the result.

        Returns
        -------
        dict
            The hit of each passage by its id, best first.

        Raises
        ------
        IndexClosedError
            If the index was closed.
        ModelMismatchError
            If the index now holds vectors of another model.
        """
        wanted = id_list(ids)
        self._require_open()
        if not wanted:
            return {}
        hits = self._reader.rerank(query, wanted, None, self._model.fingerprint, search_device(self._model))
        return {hit.id: hit for hit in hits}

    def encode_query(self, query: str) -> Floats:
        """Return the token vectors of a query by `model`, for `search_encoded` and `score_stored`.

        Raises
        ------
        InvalidInputError
            If `query` is empty or no string, or the model's vectors do not fit those of the index.
        ModelMismatchError
            If the model is not the one that made the index.
        """
        require_text(query, "query")
        require_texts([query], "query")
        self._require_open()
        self._check_model()
        return self._encode_queries([query])[0]

    def search_encoded(
        self,
        query: Floats,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        ids: Iterable[str] | None = None,
        text: str | None = None,
        bm25_weight: float | None = None,
    ) -> list[Hit]:
        """Return what `search` returns, for a query that `encode_query` has encoded already.

        With the `text` of the query the search is hybrid: BM25 has no use for vectors.

        Raises
        ------
        InvalidInputError
            For a bad `k`, filter or weight, or unless `query` is an array of numbers, *Shape:* (tokens, dim of
            `model`).
        """
        require_count(k, "k")
        self._require_open()
        kind = _Kind("colbert" if text is None else "hybrid", bm25_weight)
        require_texts([] if text is None else [text], "text")
        vectors = encoded_query(query, self._model)
        select = compile_selection(where, id_list(ids) if ids is not None else None)
        if k == 0:
            return []
        with telemetry.retrieving("ColBERTIndex.search_encoded", [], k, self._path) as span:
            return span.found(self._search_vectors([(text or "", vectors)], k, select, SearchOptions(), kind))[0]

    @property
    def bm25_weight(self) -> float:
        """BM25's share of the score of a hybrid search, 0 to 1: the stored one, else 0.3."""
        self._require_open()
        with self._catalog.read() as transaction:
            stored = recorded_bm25_weight(transaction.meta())
        return DEFAULT_BM25_WEIGHT if stored is None else stored

    def store_bm25_weight(self, weight: float | None) -> None:
        """Store BM25's share of the score of a hybrid search in the index; ``None`` goes back to the default.

        Raises
        ------
        InvalidInputError
            Unless it is a number from 0 to 1.
        """
        checked = require_weight(weight)
        writer = self._require_writer()
        with self._write_lock:
            writer.record(BM25_WEIGHT, None if checked is None else repr(checked))

    def rebuild_text_index(self) -> None:
        """Make the text index, which BM25 searches, again from the stored texts, in one commit.

        An index of an older version has none; `search` makes it where it needs it, if the index is open for writing.
        """
        writer = self._require_writer()
        with self._write_lock:
            writer.rebuild_text_index()

    def hybrid_parts(self, query: str) -> dict[str, HybridParts]:
        """Return both scores of each candidate of a hybrid search by its id; a weight makes a score of them.

        `rerank_integrations.evaluation.fit_bm25_weight` fits a weight by it.
        """
        require_text(query, "query")
        require_texts([query], "query")
        self._require_open()
        self._check_model()
        (vectors,) = self._encode_queries([query])
        fingerprint, device = self._model.fingerprint, search_device(self._model)
        return self._with_text_index(
            lambda: self._reader.hybrid_parts([(query, vectors)], fingerprint, SearchOptions(), device)[0]
        )

    def stored_vectors(self, ids: Iterable[str]) -> dict[str, Floats]:
        """Return the stored token vectors of passages by their ids; unknown ids are absent.

        Returns
        -------
        dict
            Float32, *Shape:* (tokens, dim) each. Of a compressed index they are what its codec preserves.
        """
        wanted = id_list(ids)
        self._require_open()
        return self._reader.vectors(wanted) if wanted else {}

    @property
    def revision(self) -> Hashable:
        """A value that changes with every commit, also of another process: while it is equal, the contents are."""
        self._require_open()
        with self._catalog.read() as transaction:
            return transaction.commit()

    @property
    def recorded_document_length(self) -> int | None:
        """The ``document_length`` of the model that made the index; ``None`` for the checkpoint's own."""
        self._require_open()
        with self._catalog.read() as transaction:
            return document_length(transaction.meta(), self._path)

    @property
    def pool_factor(self) -> float:
        """By what factor the token vectors of its passages are pooled; 1.0 if they are not."""
        self._require_open()
        with self._catalog.read() as transaction:
            return recorded_pool_factor(transaction.meta())

    def get(
        self,
        ids: Iterable[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Passage]:
        """Return stored passages by their ids or by a filter.

        Parameters
        ----------
        ids
            The passages come in this order; unknown ids are omitted.
        where
            A filter as in `search`; ``{}`` matches every passage. The passages come in the order in which their ids
            were first added.
        limit, offset
            How many passages to return at most, and how many to skip before them; with `where` only.

        Raises
        ------
        InvalidInputError
            For a bad filter, `limit` or `offset`, or unless exactly one of `ids` and `where` is given.
        """
        if ids is None:
            select = compile_selection(filter_alone("get", where), None)
            skipped = require_count(offset, "offset")
            most = None if limit is None else require_count(limit, "limit")
            self._require_open()
            return self._reader.get_where(select, most, skipped)
        wanted = ids_alone("get", ids, where)
        if limit is not None or offset != 0:
            raise InvalidInputError(f"get has the limit {limit!r} and the offset {offset!r} with ids; expected where")
        self._require_open()
        return self._reader.get(wanted)

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """Return how many passages match a filter as in `search`; ``None`` counts all."""
        select = compile_selection(where, None)
        self._require_open()
        return self._reader.count(select)

    def ids(self, where: Mapping[str, Any] | None = None) -> Iterator[str]:
        """Iterate over the ids of the passages that match a filter as in `search`, or of all.

        The ids come in the order in which they were first added, 1,024 in memory at a time. The index may change
        meanwhile, so passages may be deleted in the loop: an id that is there all the time comes exactly once.

        Raises
        ------
        IndexClosedError
            If the index is closed, now or before the last id.
        """
        select = compile_selection(where, None)
        self._require_open()
        return self._ids(select)

    def _ids(self, select: Sql | None) -> Iterator[str]:
        for passage_id in self._reader.ids(select):
            yield passage_id
            self._require_open()

    def __len__(self) -> int:
        self._require_open()
        return self._reader.count()

    def __contains__(self, passage_id: object) -> bool:
        self._require_open()
        return isinstance(passage_id, str) and bool(self._reader.get([passage_id]))

    def stats(self) -> IndexStats:
        """Return counts and sizes."""
        self._require_open()
        with self._catalog.read() as transaction:
            return collect_stats(transaction, self._path, transaction.meta(), self._model.name)

    def verify(self) -> VerifyReport:
        """Read every file and compare it with its checksum and the catalog.

        Raises
        ------
        IndexFormatError
            With every problem that was found.
        """
        self._require_open()
        return verify_index(self._catalog, self._path)

    def close(self) -> None:
        """Release the files and the writer's lock, and remove a temporary index. A second call does nothing.

        It waits for a write of another thread, and for reads of a temporary index. In a forked child the writer's lock
        stays with the parent.
        """
        if self._pid != os.getpid():
            # In a child the lock may be taken for ever, by a thread that only the parent has.
            self._release()
            self._reader.forget()
            return
        # Not while another thread writes, which would lose its lock.
        with self._write_lock:
            if self._writer is not None and self._release.alive:
                self._writer.finish()
            self._release()
            self._reader.forget()

    def __enter__(self) -> ColBERTIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., ColBERTIndex], tuple[str, TokenEncoder]]:
        # A pickle holds the path and the model, without vectors; the copy reads beside this index.
        return functools.partial(ColBERTIndex.open, read_only=True), (str(self._path), self._model)

    def __repr__(self) -> str:
        return f"ColBERTIndex({str(self._path)!r}, model={self._model.name!r})"

    def _search(
        self,
        queries: list[str],
        k: int,
        where: Mapping[str, object] | None,
        ids: Iterable[str] | None,
        options: SearchOptions,
        kind: _Kind,
    ) -> list[list[Hit]]:
        require_count(k, "k")
        allowed = None if ids is None else id_list(ids)
        self._require_open()
        select = compile_selection(where, allowed)
        texts = [query for query in queries if query.strip()]
        if not texts or k == 0 or allowed == []:
            return [[] for _ in queries]
        if kind.search_type == "bm25":
            results = iter(self._with_text_index(lambda: self._reader.search_bm25(texts, k, select)))
        else:
            self._check_model()
            encoded = list(zip(texts, self._encode_queries(texts), strict=True))
            results = iter(self._search_vectors(encoded, k, select, options, kind))
        return [next(results) if query.strip() else [] for query in queries]

    def _search_vectors(
        self, queries: list[tuple[str, Floats]], k: int, select: Sql | None, options: SearchOptions, kind: _Kind
    ) -> list[list[Hit]]:
        fingerprint, device = self._model.fingerprint, search_device(self._model)
        if kind.search_type == "colbert":
            vectors = [query_vectors for _, query_vectors in queries]
            return self._reader.search(vectors, k, select, fingerprint, options, device)
        weight = kind.bm25_weight
        return self._with_text_index(
            lambda: self._reader.search_hybrid(queries, k, select, fingerprint, options, weight, device)
        )

    def _with_text_index(self, search: Callable[[], T]) -> T:
        """Return the result of a search, after making the text index if it is absent."""
        try:
            return search()
        except TextIndexMissingError:
            if self._writer is None or self._pid != os.getpid():
                raise IndexReadOnlyError(
                    f"{self._path} has no text index, which BM25 needs: an older version made it. Open it for writing "
                    "once and call rebuild_text_index(), or search it once by BM25 there"
                ) from None
        self.rebuild_text_index()
        return search()

    def _encode_queries(self, queries: list[str]) -> list[Floats]:
        vectors = encode_queries(self._model, queries)
        if not self._dim_checked:
            with self._catalog.read() as transaction:
                recorded = transaction.meta().get("dim")
            if recorded is not None and int(recorded) != self._model.dim:
                raise InvalidInputError(
                    f"{self._model.name!r} has token vectors of {self._model.dim} dimensions; {self._path} holds "
                    f"{recorded}. Open it with the model that made it."
                )
            # The catalog records no dimension until there is a passage.
            self._dim_checked = recorded is not None
        return vectors

    def _check_model(self) -> None:
        if not self._model_checked:
            require_model(self._catalog, self._path, self._model)
            self._model_checked = True

    def _require_same_model(self, encoder: TokenEncoder, fingerprint: str) -> None:
        if fingerprint != self._model.fingerprint:
            raise ModelMismatchError(
                f"{self._path} is open with a model of fingerprint {self._model.fingerprint}; {encoder.name!r} has "
                f"{fingerprint}. Give the model that made it, or another path."
            )
        if portable(encoder.options()) != portable(self._model.options()):
            raise IndexLockedError(
                f"{self._path} is open for writing in this process, opened at {self._opened_at} with the model options "
                f"{self._model.options()}; close() that index to open it with {encoder.options()}, or give the same"
            )

    def _require_not_moved_to(self, folder: Path) -> None:
        if not self._catalog.is_in_place():
            raise IndexLockedError(
                f"{folder} is open for writing in this process as {self._path}, opened at {self._opened_at} before it "
                "was moved; close() that index, which can no longer write, to open this one"
            )

    def _require_recorded(self, nbits: int | None, pool_factor: float | None) -> None:
        with self._catalog.read() as transaction:
            meta = transaction.meta()
        recorded = int(meta["nbits"])
        if nbits is not None and (type(nbits) is not int or nbits != recorded):
            raise self._otherwise_made("nbits", nbits, f"{recorded}")
        factor = recorded_pool_factor(meta)
        if pool_factor is not None and require_pool_factor(pool_factor) != factor:
            raise self._otherwise_made("pool_factor", pool_factor, pool_factor_text(factor))

    def _otherwise_made(self, name: str, value: object, recorded: str) -> InvalidInputError:
        return InvalidInputError(
            f"{name} is {value!r}; {self._path} was made with {recorded}. Leave {name} out, or create it anew "
            "with overwrite=True"
        )

    def _require_open(self) -> None:
        if not self._release.alive:
            raise IndexClosedError(f"the index at {self._path} is closed; open it again")

    def _require_writer(self) -> Writer:
        self._require_open()
        if self._writer is None:
            raise IndexReadOnlyError(f"{self._path} was opened with read_only=True; expected a writer")
        if self._pid != os.getpid():
            raise IndexLockedError(
                f"{self._path} was opened for writing by process {self._pid}, which forked this one ({os.getpid()}); "
                "write there, or open it here once that one has closed it"
            )
        return self._writer


class _Kind:
    """The kind of a search, checked: by which scores it ranks, and BM25's share of them."""

    def __init__(self, search_type: str, bm25_weight: float | None) -> None:
        self.search_type = require_search_type(search_type)
        self.bm25_weight = require_weight(bm25_weight, self.search_type)


# The indexes that this process has open for writing, by the identity of the folder.
_WRITERS: weakref.WeakValueDictionary[tuple[int, int], ColBERTIndex] = weakref.WeakValueDictionary()
# Several threads that open or create the same index at once all get the object that the first has made.
_opening = threading.RLock()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _open_writer(folder: Path) -> ColBERTIndex | None:
    """Return the index object by which this process has `folder` open for writing."""
    try:
        index = _WRITERS.get(_identity(folder))
    except OSError:
        return None
    # A child has its parent's objects, but not its lock.
    return index if index is not None and index._release.alive and index._pid == os.getpid() else None


def _writer_lock(folder: Path) -> lock.WriterLock:
    try:
        return lock.acquire(folder)
    except IndexLockedError as error:
        index = _open_writer(folder)
        if index is None:
            raise
        raise IndexLockedError(
            f"{folder} is open for writing in this very process, opened at {index._opened_at}: go on with that index "
            "(ColBERTIndex.open_or_create(path, model) returns it again) or close() it; with read_only=True it can be "
            "searched beside it"
        ) from error


def _caller() -> str:
    """Return the file and line of the call into this package."""
    package = __name__.partition(".")[0]
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def as_index(index: str | os.PathLike[str] | Mapping[str, Any] | ColBERTIndex) -> ColBERTIndex:
    """Return `index` itself, or the index at that path opened for reading.

    Parameters
    ----------
    index
        A mapping has a ``path`` and a ``model``: a name, a path, or arguments of `ColBERTModel`. An index that was made
        with a model in a folder does not open by its path alone.

    Raises
    ------
    InvalidInputError
        If it is none of these.
    """
    if isinstance(index, ColBERTIndex):
        return index
    if isinstance(index, str | os.PathLike):
        return ColBERTIndex.open(index, read_only=True)
    if isinstance(index, Mapping) and set(index) == {"path", "model"}:
        model = index["model"]
        encoder = ColBERTModel(**model) if isinstance(model, Mapping) else model
        return ColBERTIndex.open(index["path"], encoder, read_only=True)
    raise InvalidInputError(
        f"index is of type {type(index).__name__}; expected a path, a ColBERTIndex, or a mapping of path and model"
    )
