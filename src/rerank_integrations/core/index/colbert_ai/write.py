"""A writer of index folders that colbert-ai's own classes open."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.colbert_ai.codec import ColbertAICodec, require_codec, require_tokens
from rerank_integrations.core.index.colbert_ai.collection import (
    COLLECTION_JSON,
    COLLECTION_TSV,
    DOCID_METADATA_MAP,
    PID_DOCID_MAP,
)
from rerank_integrations.core.index.colbert_ai.read import AVG_RESIDUAL, BUCKETS, CENTROIDS, METADATA
from rerank_integrations.core.index.storage.arrays import sync_path
from rerank_integrations.core.index.storage.refusals import cause
from rerank_integrations.core.index.storage.validation import metadata_json
from rerank_integrations.core.types import Passage
from rerank_integrations.errors import IndexExistsError, IndexWriteError, InvalidInputError

_NOT_IN_TSV = re.compile(r"[\t\r\n]")


class Row(NamedTuple):
    """A passage that can be stored; `metadata` is JSON text."""

    id: str
    text: str
    metadata: str


def storable_rows(passages: Sequence[Passage], taken: set[str]) -> list[Row]:
    """Return a row for each passage.

    Raises
    ------
    InvalidInputError
        If a passage cannot be stored, or its id is among `taken` or comes twice.
    """
    rows = [Row(passage.id, passage.text, metadata_json(passage)) for passage in passages]
    seen: set[str] = set()
    for row in rows:
        if row.id in taken or row.id in seen:
            raise InvalidInputError(f"passage id {row.id!r} comes twice; expected ids that are unique in the index")
        seen.add(row.id)
    return rows


class CollectionFiles:
    """``collection.tsv`` for colbert-ai, and RAGatouille's three files, open for writing in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._tsv = self._open(folder / COLLECTION_TSV)
        self._texts = _JsonLines(self._open(folder / COLLECTION_JSON), "[", "]")
        self._ids = _JsonLines(self._open(folder / PID_DOCID_MAP), "{", "}")
        self._metadata = _JsonLines(self._open(folder / DOCID_METADATA_MAP), "{", "}")

    def write(self, rows: Sequence[Row], first_pid: int) -> None:
        """Append passages, numbered from `first_pid`."""
        for pid, row in enumerate(rows, first_pid):
            self._tsv.write(f"{pid}\t{_NOT_IN_TSV.sub(' ', row.text)}\n")
            self._texts.write(_json(row.text))
            self._ids.write(f'"{pid}": {_json(row.id)}')
            if row.metadata != "{}":
                self._metadata.write(f"{_json(row.id)}: {row.metadata}")

    def finish(self) -> None:
        """Write the ends of the files, and close them."""
        for lines in (self._texts, self._ids, self._metadata):
            lines.end()
        self._stack.close()

    def discard(self) -> None:
        """Close the files, whatever was written; a second call does nothing."""
        # The contents of the buffers may not fit on a full disk.
        with contextlib.suppress(OSError):
            self._stack.close()

    def _open(self, path: Path) -> TextIO:
        return self._stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))


class _JsonLines:
    def __init__(self, stream: TextIO, start: str, end: str) -> None:
        self._stream = stream
        self._before = start + "\n"
        self._start = self._before
        self._end = end

    def write(self, item: str) -> None:
        self._stream.write(self._before + item)
        self._before = ",\n"

    def end(self) -> None:
        self._stream.write((self._start if self._before == self._start else "\n") + self._end + "\n")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class InvertedLists:
    """Builder of inverted lists; it takes chunks of tokens in the order of the passages.

    Parameters
    ----------
    centroids
        The number of centroids.
    """

    def __init__(self, centroids: int) -> None:
        self._centroids = centroids
        self._chunks: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []

    def add(self, codes: NDArray[np.int32], lengths: NDArray[np.int32], first_pid: int) -> None:
        """Add the tokens of consecutive passages; tokens of a passage with the same centroid become a single entry."""
        pids = np.repeat(np.arange(first_pid, first_pid + len(lengths), dtype=np.int64), lengths)
        pairs = np.unique(codes.astype(np.int64) << 32 | pids)
        counts = np.bincount(pairs >> 32, minlength=self._centroids)
        self._chunks.append((counts, (pairs & 0xFFFFFFFF).astype(np.int32)))

    def build(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the concatenated lists, each ascending, and the length of each; the chunks are dropped.

        Behind the last list there are zeros where colbert-ai, which reads lists as rows of the longest one's length,
        would otherwise have to copy everything when it opens the index.
        """
        lengths = np.zeros(self._centroids, np.int64)
        for counts, _ in self._chunks:
            lengths += counts
        offsets = np.cumsum(lengths) - lengths
        total, longest = int(lengths.sum()), int(lengths.max())
        lists = np.zeros(total + (longest if offsets[-1] + longest > total else 0), np.int32)
        ends = offsets.copy()
        for counts, pids in self._chunks:
            starts = np.cumsum(counts) - counts
            lists[np.repeat(ends - starts, counts) + np.arange(len(pids))] = pids
            ends += counts
        self._chunks.clear()
        return lists, lengths


# The most passages that colbert-ai itself puts in a chunk.
MAX_CHUNK_PASSAGES = 25_000

_CODEC_NAMES = {
    name: name for name in ("nbits", "dim", "centroids", "bucket_weights", "bucket_cutoffs", "avg_residual")
}


class ColbertAIWriter:
    """Writer of an index folder; the whole folder appears at the end of the ``with`` block.

    Until then everything is in a hidden folder beside it, which is removed if the block ends with an error. The folder
    opens in colbert-ai's ``IndexScorer`` and ``Searcher`` (``collection=".../collection.tsv"``), and holds
    RAGatouille's files: ``collection.json``, ``pid_docid_map.json`` and ``docid_metadata_map.json``, from which
    `read_collection` reads ids, texts and metadata back as they were. In ``collection.tsv`` tabs and line breaks have
    become spaces.

    Memory: one chunk (about 40 bytes per token while its passages are sorted by centroid), 8 bytes for each token
    written, 8 bytes per centroid and chunk, and the ids.

    Parameters
    ----------
    path
        The folder to make; its parent is made if absent.
    codec
        The codec of all tokens. Its centroids must be float16 numbers (rounded, in a float32 array), as colbert-ai
        stores them.
    checkpoint
        The name or path of the model, which colbert-ai's ``Searcher`` loads by default.

    Raises
    ------
    IndexExistsError
        On entering, if something other than an empty folder stands at `path`.
    InvalidInputError
        If the codec does not fit together or colbert-ai could not load it.
    IndexWriteError
        If the operating system refuses a write; nothing is left behind.
    """

    def __init__(self, path: str | os.PathLike[str], codec: ColbertAICodec, checkpoint: str | None = None) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
            raise InvalidInputError(f"index path is {path!r}; expected the path of a folder")
        require_codec(codec, _CODEC_NAMES, InvalidInputError)
        with np.errstate(over="ignore"):
            if (codec.centroids.astype(np.float16) != codec.centroids).any():
                raise InvalidInputError(
                    "centroids are not float16 numbers, as colbert-ai stores them; expected rounded ones"
                )
        self._path = Path(path).absolute()
        self._temporary = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.tmp")
        self._codec = codec
        self._checkpoint = checkpoint
        self._lists = InvertedLists(len(codec.centroids))
        self._texts: CollectionFiles | None = None
        self._ids: set[str] = set()
        self._chunks = 0
        self._passages = 0
        self._tokens = 0
        self._failed = False

    def __enter__(self) -> ColbertAIWriter:
        require_vacant(self._path)
        try:
            with self._writing():
                self._temporary.mkdir(parents=True)
                self._texts = CollectionFiles(self._temporary)
                self._save(self._codec.centroids.astype(np.float16), CENTROIDS)
                self._save((self._codec.bucket_cutoffs, self._codec.bucket_weights), BUCKETS)
                self._save(np.array([self._codec.avg_residual], np.float32), AVG_RESIDUAL)
        except BaseException:
            self._discard()
            raise
        return self

    def add(
        self,
        codes: NDArray[np.int32],
        residuals: NDArray[np.uint8],
        lengths: NDArray[np.int32],
        passages: Sequence[Passage],
    ) -> None:
        """Write one chunk.

        Parameters
        ----------
        codes
            Each token's centroid, int32, *Shape:* (tokens,).
        residuals
            As `pack` makes them, uint8, *Shape:* (tokens, dim * nbits // 8).
        lengths
            Tokens per passage, int32, *Shape:* (passages,).
        passages
            1 to 25,000 of them, with ids that are unique in the index.

        Raises
        ------
        InvalidInputError
            If these do not fit together; nothing was written, and another chunk may follow.
        IndexWriteError
            If the operating system refuses.
        """
        if self._texts is None:
            raise InvalidInputError("the writer is not open; expected add() inside its with block")
        self._require_chunk(codes, residuals, lengths, passages)
        rows = storable_rows(passages, self._ids)
        with self._writing():
            self._save(codes, f"{self._chunks}.codes.pt")
            self._save(residuals, f"{self._chunks}.residuals.pt")
            self._save_json(lengths.tolist(), f"doclens.{self._chunks}.json")
            chunk = {
                "passage_offset": self._passages,
                "num_passages": len(lengths),
                "num_embeddings": len(codes),
                "embedding_offset": self._tokens,
            }
            self._save_json(chunk, f"{self._chunks}.metadata.json")
            self._texts.write(rows, self._passages)
        self._lists.add(codes, lengths, self._passages)
        self._ids.update(row.id for row in rows)
        self._chunks += 1
        self._passages += len(lengths)
        self._tokens += len(codes)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self._failed:
            raise IndexWriteError(f"an earlier write for {self._path} failed; nothing is left there")
        if self._tokens == 0:
            raise InvalidInputError(f"{self._path} would hold no tokens, which colbert-ai cannot open; expected some")
        assert self._texts is not None
        with self._writing():
            self._texts.finish()
            self._save(self._lists.build(), "ivf.pid.pt")
            average = self._tokens / self._passages
            shared = {
                "config": self._config(),
                "num_chunks": self._chunks,
                "num_partitions": len(self._codec.centroids),
            }
            self._save_json(
                {**shared, "num_embeddings_est": float(self._tokens), "avg_doclen_est": average}, "plan.json"
            )
            self._save_json({**shared, "num_embeddings": self._tokens, "avg_doclen": average}, METADATA)
            for file in self._temporary.iterdir():
                sync_path(file)
            sync_path(self._temporary)
            if self._path.exists():
                # Windows cannot rename onto a folder. One that has been filled meanwhile raises an error here.
                self._path.rmdir()
            self._temporary.rename(self._path)
            sync_path(self._path.parent)

    def _discard(self) -> None:
        if self._texts is not None:
            self._texts.discard()
            self._texts = None
        # After the rename there is no such folder.
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _config(self) -> dict[str, Any]:
        # colbert-ai takes all other settings from the checkpoint.
        return {
            "dim": self._codec.dim,
            "nbits": self._codec.nbits,
            "checkpoint": self._checkpoint,
            "index_name": self._path.name,
        }

    def _require_chunk(
        self, codes: NDArray[Any], residuals: NDArray[Any], lengths: NDArray[Any], passages: Sequence[Passage]
    ) -> None:
        require_tokens(self._codec, codes, residuals, {"codes": "codes", "residuals": "residuals"}, InvalidInputError)
        if lengths.dtype != np.int32 or lengths.ndim != 1 or (lengths < 0).any():
            raise InvalidInputError(
                f"lengths are {lengths.dtype} of shape {lengths.shape}; expected int32, none negative"
            )
        if not 1 <= len(passages) <= MAX_CHUNK_PASSAGES or len(lengths) != len(passages):
            raise InvalidInputError(
                f"a chunk of {len(lengths)} lengths and {len(passages)} passages; expected as many of both, from 1 to "
                f"{MAX_CHUNK_PASSAGES}"
            )
        if int(lengths.sum(dtype=np.int64)) != len(codes):
            raise InvalidInputError(f"lengths sum to {lengths.sum()}; expected {len(codes)}, the tokens of the chunk")

    def _save(self, arrays: NDArray[Any] | tuple[NDArray[Any], ...], name: str) -> None:
        import torch

        if isinstance(arrays, tuple):
            torch.save(tuple(torch.from_numpy(_own(array)) for array in arrays), self._temporary / name)
        else:
            torch.save(torch.from_numpy(_own(arrays)), self._temporary / name)

    def _save_json(self, value: Any, name: str) -> None:
        (self._temporary / name).write_text(json.dumps(value) + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failed = True
            # PyTorch turns an error of the operating system into a RuntimeError.
            if isinstance(error, OSError | RuntimeError):
                raise IndexWriteError(f"cannot write {self._path}: {error}; nothing is left there") from error
            raise


def require_vacant(path: Path) -> None:
    """Raise `IndexExistsError` if something other than an empty folder stands at `path`."""
    try:
        is_empty_folder = path.is_dir() and not any(path.iterdir())
        is_taken = path.is_symlink() or (path.exists() and not is_empty_folder)
    except OSError as error:
        raise IndexWriteError(f"cannot write {path}: {cause(error)}") from error
    if is_taken:
        raise IndexExistsError(f"{path} exists; expected nothing there, or an empty folder")


def _own(array: NDArray[Any]) -> NDArray[Any]:
    # PyTorch warns about a read-only (mapped) array, and of a slice it would save the whole storage.
    return np.array(array) if not array.flags.writeable or array.base is not None else array
