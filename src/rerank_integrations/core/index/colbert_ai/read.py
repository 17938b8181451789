"""A reader of index folders that colbert-ai wrote; it checks everything before it uses it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.index.colbert_ai.codec import (
    ColbertAICodec,
    require_array,
    require_codec,
    require_dim,
    require_nbits,
    require_tokens,
)
from rerank_integrations.core.index.colbert_ai.json_files import brief, count, read_json
from rerank_integrations.core.index.colbert_ai.tensors import load_pair, load_tensor
from rerank_integrations.core.index.storage.array_rules import MAX_CENTROIDS
from rerank_integrations.core.index.storage.refusals import is_file
from rerank_integrations.errors import IndexFormatError, InvalidInputError

_LOGGER = logging.getLogger(__name__)

METADATA = "metadata.json"
CENTROIDS = "centroids.pt"
AVG_RESIDUAL = "avg_residual.pt"
BUCKETS = "buckets.pt"
# The largest file of settings that is read; colbert-ai writes a few thousand bytes.
MAX_METADATA_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive passages that colbert-ai stored together.

    Parameters
    ----------
    first_pid
        The number of its first passage; passages are numbered from 0 through the index.
    codes
        Int32, *Shape:* (tokens,): each token's centroid. Memory-mapped.
    residuals
        Uint8, *Shape:* (tokens, dim * nbits // 8): packed as `codebook` says. Memory-mapped.
    lengths
        Int32, *Shape:* (passages,): tokens per passage, 0 for one that colbert-ai's updater removed.
    """

    first_pid: int
    codes: NDArray[np.int32]
    residuals: NDArray[np.uint8]
    lengths: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ColbertAIIndex:
    """An opened folder: `open_colbert_ai` has checked all but the codes and residuals, which `check_all` checks.

    Parameters
    ----------
    path
        The folder.
    codec
        Centroids and buckets.
    lengths
        Int32, *Shape:* (passages,), for each chunk.
    checkpoint
        The name or path of the model that encoded it, if recorded; for information.
    """

    path: Path
    codec: ColbertAICodec
    lengths: tuple[NDArray[np.int32], ...]
    checkpoint: str | None

    @property
    def num_chunks(self) -> int:
        """The number of chunks."""
        return len(self.lengths)

    @property
    def num_passages(self) -> int:
        """The number of passages, removed ones included."""
        return sum(map(len, self.lengths))

    @property
    def num_tokens(self) -> int:
        """The number of token vectors."""
        return sum(int(lengths.sum(dtype=np.int64)) for lengths in self.lengths)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in order, each after checking it.

        Raises
        ------
        IndexFormatError
            If a file is missing, damaged, or does not fit the others.
        """
        first_pid = 0
        for number, lengths in enumerate(self.lengths):
            yield self._chunk(number, first_pid, lengths)
            first_pid += len(lengths)

    def check_all(self) -> None:
        """Read and check every chunk; errors as those of `chunks`. Call it before anything is built from them."""
        for _ in self.chunks():
            pass

    def _chunk(self, number: int, first_pid: int, lengths: NDArray[np.int32]) -> Chunk:
        names = {"codes": str(self.path / f"{number}.codes.pt"), "residuals": str(self.path / f"{number}.residuals.pt")}
        codes = load_tensor(Path(names["codes"]))
        residuals = load_tensor(Path(names["residuals"]))
        require_tokens(self.codec, codes, residuals, names, IndexFormatError)
        tokens = int(lengths.sum(dtype=np.int64))
        if len(codes) != tokens:
            raise IndexFormatError(
                f"{names['codes']} holds {len(codes)} tokens; expected {tokens}, the sum of doclens.{number}.json"
            )
        return Chunk(first_pid, codes, residuals, lengths)


def open_colbert_ai(path: str | os.PathLike[str]) -> ColbertAIIndex:
    """Open an index folder that colbert-ai 0.2 or RAGatouille wrote.

    Reads the centroids, the buckets and the passage lengths, not the tokens. Files outside the folder that its metadata
    may name are never opened; ``ivf.pid.pt`` is not read, since the codes say the same.

    Raises
    ------
    InvalidInputError
        If `path` is not a path.
    IndexFormatError
        If the folder is not such an index, a file is missing or damaged, or files contradict each other.
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise InvalidInputError(f"index path is {path!r}; expected the path of a folder")
    folder = Path(path).absolute()
    if not is_file(folder / METADATA):
        raise IndexFormatError(
            f"{folder} is not a colbert-ai index: it holds no {METADATA}, which colbert-ai writes last"
        )
    metadata = read_json(folder / METADATA, dict, MAX_METADATA_BYTES)
    config = metadata.get("config")
    if not isinstance(config, dict):
        raise IndexFormatError(f"{folder / METADATA} has {brief(config)} at 'config'; expected a JSON object")
    codec = _read_codec(folder, config)
    partitions = metadata.get("num_partitions", len(codec.centroids))
    if partitions != len(codec.centroids):
        raise IndexFormatError(
            f"{folder / CENTROIDS} holds {len(codec.centroids)} centroids; expected {brief(partitions)}, the "
            f"num_partitions of {METADATA}"
        )
    checkpoint = config.get("checkpoint")
    return ColbertAIIndex(
        folder, codec, tuple(_read_lengths(folder, metadata)), checkpoint if isinstance(checkpoint, str) else None
    )


def _read_codec(folder: Path, config: dict[str, Any]) -> ColbertAICodec:
    metadata = folder / METADATA
    nbits, dim = count(config, "nbits", metadata), count(config, "dim", metadata)
    names = {field: f"{metadata} config.{field}" for field in ("nbits", "dim")}
    require_nbits(nbits, names["nbits"], IndexFormatError)
    require_dim(dim, nbits, names["dim"], IndexFormatError)
    floats = (np.float16, np.float32)
    centroids = load_tensor(folder / CENTROIDS)
    # Checked before the numbers are copied into memory.
    if centroids.ndim and len(centroids) > MAX_CENTROIDS:
        raise IndexFormatError(f"{folder} has {len(centroids)} centroids; expected at most {MAX_CENTROIDS}")
    require_array(centroids, str(folder / CENTROIDS), floats, ("centroids", dim), IndexFormatError)
    cutoffs, weights = load_pair(folder / BUCKETS)
    names["bucket_cutoffs"] = f"{folder / BUCKETS}, cutoffs,"
    names["bucket_weights"] = f"{folder / BUCKETS}, weights,"
    require_array(cutoffs, names["bucket_cutoffs"], floats, ((1 << nbits) - 1,), IndexFormatError)
    require_array(weights, names["bucket_weights"], floats, (1 << nbits,), IndexFormatError)
    avg_residual = load_tensor(folder / AVG_RESIDUAL)
    # A number, or a row of one number, depending on colbert-ai's device.
    require_array(avg_residual.reshape(-1), str(folder / AVG_RESIDUAL), floats, (1,), IndexFormatError)
    codec = ColbertAICodec(
        nbits,
        np.array(centroids, np.float32),
        np.array(weights, np.float32),
        np.array(cutoffs, np.float32),
        float(avg_residual.reshape(-1)[0]),
    )
    names |= {"centroids": str(folder / CENTROIDS), "avg_residual": str(folder / AVG_RESIDUAL)}
    require_codec(codec, names, IndexFormatError)
    return codec


def _read_lengths(folder: Path, metadata: dict[str, Any]) -> Iterator[NDArray[np.int32]]:
    chunks = count(metadata, "num_chunks", folder / METADATA, least=1)
    announced = count(metadata, "num_embeddings", folder / METADATA)
    passages = tokens = 0
    for number in range(chunks):
        lengths = _chunk_lengths(folder, number, passages)
        passages += len(lengths)
        tokens += int(lengths.sum(dtype=np.int64))
        yield lengths
    if any((folder / f"{chunks}.{kind}.pt").exists() for kind in ("codes", "residuals")):
        raise IndexFormatError(
            f"{folder} holds a chunk {chunks}; expected {chunks} chunks, the num_chunks of {METADATA}"
        )
    if tokens > announced:
        raise IndexFormatError(f"{folder / METADATA} announces {announced} num_embeddings; the chunks hold {tokens}")
    if tokens < announced:
        # colbert-ai's IndexUpdater counts the earlier tokens twice.
        _LOGGER.warning("%s announces %d tokens; the chunks hold %d", folder / METADATA, announced, tokens)


def _chunk_lengths(folder: Path, number: int, first_pid: int) -> NDArray[np.int32]:
    path = folder / f"{number}.metadata.json"
    chunk = read_json(path, dict, MAX_METADATA_BYTES)
    expected = {name: count(chunk, name, path) for name in ("passage_offset", "num_passages", "num_embeddings")}
    doclens_path = folder / f"doclens.{number}.json"
    doclens = read_json(doclens_path, list)
    if not all(type(length) is int and 0 <= length < 1 << 31 for length in doclens):
        raise IndexFormatError(f"{doclens_path} holds something else than token counts; expected integers from 0")
    counted = {"passage_offset": first_pid, "num_passages": len(doclens), "num_embeddings": sum(doclens)}
    for name, value in counted.items():
        if expected[name] != value:
            raise IndexFormatError(
                f"{path} gives {name!r} as {brief(expected[name])}; expected {value} by doclens.{number}.json "
                "and those before"
            )
    for kind in ("codes", "residuals"):
        if not (folder / f"{number}.{kind}.pt").is_file():
            raise IndexFormatError(f"{folder / f'{number}.{kind}.pt'} is missing; {METADATA} tells of this chunk")
    return np.array(doclens, np.int32)
