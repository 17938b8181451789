"""`ColBERTIndex`: passages and their token vectors on disk, searched by MaxSim."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rerank_integrations.core.index import lock
from rerank_integrations.core.index.catalog import FILENAME, Catalog
from rerank_integrations.core.index.effort import Effort, search_device
from rerank_integrations.core.index.folder import index_folder, make_folder, release, require_free
from rerank_integrations.core.index.ids import id_list
from rerank_integrations.core.index.inspect import IndexStats, VerifyReport, collect_stats, verify_index
from rerank_integrations.core.index.reader import Reader
from rerank_integrations.core.index.recorded import model_record, recorded_model
from rerank_integrations.core.index.schema import read_meta
from rerank_integrations.core.index.writer import Writer
from rerank_integrations.core.models import TokenEncoder, as_colbert_model
from rerank_integrations.core.models.validate import require_texts
from rerank_integrations.core.rerank import require_count, require_text
from rerank_integrations.core.types import Hit, Passage, PassageLike
from rerank_integrations.errors import (
    IndexClosedError,
    IndexFormatError,
    IndexLockedError,
    IndexReadOnlyError,
    InvalidInputError,
    ModelMismatchError,
)

_NBITS = (1, 2, 4)


class ColBERTIndex:
    """An index on disk; made by `create` or `open`.

    One writer at a time, any number of readers, in this process and in others; a reader sees each new commit at its
    next call. Every method may be called from any thread. Killed at any moment, the last commit stands.
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
        """Not for callers: use `create` or `open`."""
        self._path = path
        self._model = model
        self._catalog = catalog
        self._reader = Reader(path, catalog)
        self._writer = None if writer_lock is None else Writer(path, catalog, writer_lock)
        self._write_lock = threading.RLock()
        self._model_checked = False
        self._pid = os.getpid()
        self._release = weakref.finalize(self, release, catalog, writer_lock, path if temporary else None, os.getpid())

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        model: str | Path | TokenEncoder,
        *,
        nbits: int = 2,
        overwrite: bool = False,
    ) -> ColBERTIndex:
        """Make an empty index and open it for writing.

        Parameters
        ----------
        path
            A folder, made if absent; ``None`` for a temporary one that goes at `close`.
        model
            A `ColBERTModel`, or the name or path of one.
        nbits
            Bits a dimension of a compressed token vector, 1, 2 or 4. Past some 4,000 passages all are compressed.
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
        encoder: TokenEncoder = as_colbert_model(model)
        if path is not None:
            require_free(index_folder(path), overwrite)
        meta = {"model": model_record(encoder), "fingerprint": encoder.fingerprint, "nbits": str(nbits)}
        folder = make_folder(path)
        writer_lock = lock.acquire(folder)
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
        """Open an index that exists; reads the catalog, loads no model.

        Parameters
        ----------
        path
            The index's folder.
        model
            The model it was made with; by default the recorded one is loaded at the first search.
        read_only
            Take no writer's lock. For searching beside a writer, and on read-only media.

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
        if not (folder / FILENAME).is_file():
            raise IndexFormatError(f"{folder} is not an index: it holds no {FILENAME}")
        writer_lock = None if read_only else lock.acquire(folder)
        catalog = Catalog(folder / FILENAME, read_only=read_only)
        try:
            catalog.upgrade()
            with catalog.read() as connection:
                meta = read_meta(connection, folder)
            encoder = recorded_model(meta, folder) if model is None else as_colbert_model(model)
            index = cls(folder, encoder, catalog, writer_lock, temporary=False)
            if model is not None:
                index._check_model()
            if index._writer is not None:
                index._writer.sweep()
        except BaseException:
            release(catalog, writer_lock, None, os.getpid())
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
            Strings, `Passage`s or mappings with ``text`` and, if wanted, ``id`` and ``metadata``; any iterable, read
            as it goes. A passage whose text is stored already is not encoded again.
        show_progress
            A progress bar; by default only on a terminal.

        Returns
        -------
        list of str
            The id of each passage, in the order given. Of equal ids in one call the last one stays.

        Raises
        ------
        InvalidInputError
            For a passage or metadata of a wrong kind. Each 256 passages are one commit: of the 256 with the bad one
            none is stored, those before stay.
        IndexReadOnlyError, IndexWriteError
            If the index is not open for writing, or the disk is full.
        """
        writer = self._require_writer()
        with self._write_lock:
            self._check_model()
            return writer.upsert(passages, self._model, show_progress)

    def delete(self, ids: Iterable[str]) -> int:
        """Remove passages; unknown ids are passed over. Returns how many were removed."""
        writer = self._require_writer()
        wanted = id_list(ids)
        with self._write_lock:
            return writer.delete(wanted) if wanted else 0

    def compact(self) -> None:
        """Give the space of deleted and replaced passages back, and join small segments; results do not change."""
        writer = self._require_writer()
        with self._write_lock:
            writer.compact()

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        ids: Iterable[str] | None = None,
        exact: bool = False,
        n_probe: int | None = None,
        n_candidates: int | None = None,
    ) -> list[Hit]:
        """Return the best passages for a query.

        Parameters
        ----------
        query
            White space alone finds nothing.
        k
            How many, at least 0.
        where
            A Mongo-style filter on metadata, applied before anything is scored: ``{"year": {"$gte": 2023}}``; with
            ``$eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not``.
        ids
            Only these may be found; unknown ones are passed over.
        exact
            Score every passage that may be found. An index that is not compressed always does.
        n_probe
            Centroids a query token, whose passages become candidates; more find more, and take longer. By default
            every passage is one while few enough tokens may be found.
        n_candidates
            How many candidates are kept by their centroids; by default 160, or more for a large index, 4 bits or `k`.

        Returns
        -------
        list of Hit
            Exactly ``min(k, passages that may be found)``, best first, equal scores by id.

        Raises
        ------
        InvalidInputError
            For a bad `k`, filter or `query` type.
        ModelMismatchError
            If the model is not the one that made the index.
        """
        require_texts([query], "query")
        return self._search([query], k, where, ids, Effort(n_probe, n_candidates, exact))[0]

    def search_many(
        self, queries: Iterable[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """Search for several queries at once: encoded in batches, the vectors read once. One list a query."""
        # A list first, since the check would use an iterator up; one string alone is for the check to refuse.
        asked = queries if isinstance(queries, str) else list(queries)
        require_texts(asked, "query")
        return self._search(list(asked), k, where, None, Effort())

    def rerank(self, query: str, ids: Iterable[str], k: int | None = None) -> list[Hit]:
        """Rank stored passages by their stored vectors; only the query is encoded.

        Parameters
        ----------
        query
            Must hold more than white space.
        ids
            Which passages; unknown ones are passed over.
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
        vectors = self._model.encode_queries([query])[0]
        return self._reader.rerank(vectors, wanted, k, self._model.fingerprint, search_device(self._model))

    def get(self, ids: Iterable[str]) -> list[Passage]:
        """Return the passages with these ids, in the order asked; unknown ids are left out."""
        wanted = id_list(ids)
        self._require_open()
        return self._reader.get(wanted)

    def __len__(self) -> int:
        self._require_open()
        return self._reader.count()

    def __contains__(self, passage_id: object) -> bool:
        self._require_open()
        return isinstance(passage_id, str) and bool(self._reader.get([passage_id]))

    def stats(self) -> IndexStats:
        """Return counts and sizes."""
        self._require_open()
        with self._catalog.read() as connection:
            return collect_stats(connection, self._path, read_meta(connection, self._path), self._model.name)

    def verify(self) -> VerifyReport:
        """Read every file and compare it with its checksum and the catalog.

        Raises
        ------
        IndexFormatError
            Listing every problem found.
        """
        self._require_open()
        return verify_index(self._catalog, self._path)

    def close(self) -> None:
        """Release the files and the writer's lock; a temporary index goes. Closing twice is nothing."""
        # Not while another thread writes: the lock would go from under it.
        with self._write_lock:
            if self._writer is not None and self._release.alive and self._pid == os.getpid():
                self._writer.finish()
            self._release()
            self._reader.forget()

    def __enter__(self) -> ColBERTIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # Where it is and what encodes for it, no vectors; the copy reads beside this one.
        return functools.partial(ColBERTIndex.open, read_only=True), (str(self._path), self._model)

    def __repr__(self) -> str:
        return f"ColBERTIndex({str(self._path)!r}, model={self._model.name!r})"

    def _search(
        self,
        queries: list[str],
        k: int,
        where: Mapping[str, Any] | None,
        ids: Iterable[str] | None,
        effort: Effort,
    ) -> list[list[Hit]]:
        require_count(k, "k")
        allowed = None if ids is None else id_list(ids)
        self._require_open()
        select = self._reader.selection(where, allowed)
        asked = [query for query in queries if query.strip()]
        if not asked or k == 0 or allowed == []:
            return [[] for _ in queries]
        self._check_model()
        vectors = self._model.encode_queries(asked)
        fingerprint, device = self._model.fingerprint, search_device(self._model)
        found = iter(self._reader.search(vectors, k, select, fingerprint, effort, device))
        return [next(found) if query.strip() else [] for query in queries]

    def _check_model(self) -> None:
        if self._model_checked:
            return
        with self._catalog.read() as connection:
            recorded = read_meta(connection, self._path)["fingerprint"]
        if recorded != self._model.fingerprint:
            raise ModelMismatchError(
                f"{self._path} was made with a model of fingerprint {recorded}; {self._model.name!r} has "
                f"{self._model.fingerprint}. Open it with the model that made it, or index anew."
            )
        self._model_checked = True

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
