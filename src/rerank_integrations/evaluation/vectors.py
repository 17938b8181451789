"""A collection's vectors, encoded once for all pipelines of one model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.index.arrays import map_array
from rerank_integrations.core.types import Passage

_ROWS, _LENGTHS, _FACTS = "rows", "lengths.npy", "facts.json"
# Passages that are encoded between two writes: what memory must hold.
_AT_ONCE = 1024


@dataclass(frozen=True)
class PassageVectors:
    """Vectors of passages, in their order.

    Parameters
    ----------
    vectors
        *Shape:* (tokens, dim) each, float16 of a ColBERT's; (1, dim), float32 of a bi-encoder's. Mapped from a file.
    seconds
        What encoding them took.
    """

    vectors: list[NDArray[Any]]
    seconds: float


def are_stored(folder: Path, identity: str) -> bool:
    """Whether a folder holds all that `store_vectors` wrote for a model of this identity."""
    facts = folder / _FACTS
    return facts.is_file() and json.loads(facts.read_text(encoding="utf-8"))["model"] == identity


def store_vectors(
    folder: Path,
    identity: str,
    encode: Callable[[list[str]], Sequence[NDArray[Any]]],
    passages: Sequence[Passage],
    dtype: type[np.float16] | type[np.float32],
) -> None:
    """Encode passages into the files of a folder, unless it holds those of this model already.

    Parameters
    ----------
    identity
        Tells the model from others.
    encode
        Gives an array a text, *Shape:* (rows, dim).
    """
    if are_stored(folder, identity):
        return
    facts = folder / _FACTS
    folder.mkdir(parents=True, exist_ok=True)
    facts.unlink(missing_ok=True)
    start, lengths, dim = time.perf_counter(), [], 0
    with (folder / _ROWS).open("wb") as stream, tqdm(total=len(passages), desc="encoding", disable=None) as bar:
        for first in range(0, len(passages), _AT_ONCE):
            some = encode([passage.text for passage in passages[first : first + _AT_ONCE]])
            lengths += [len(vectors) for vectors in some]
            dim = some[0].shape[1]
            stream.write(np.concatenate(some).astype(dtype).tobytes())
            bar.update(len(some))
    np.save(folder / _LENGTHS, np.array(lengths, dtype=np.int64))
    found = {"model": identity, "dim": dim, "dtype": np.dtype(dtype).name, "seconds": time.perf_counter() - start}
    written = facts.with_name(f".{_FACTS}")
    written.write_text(json.dumps(found), encoding="utf-8")
    # Last, since it says that the others are whole.
    written.replace(facts)


def open_vectors(folder: Path) -> PassageVectors:
    """Map what `store_vectors` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    lengths = map_array(folder / _LENGTHS, np.int64, (None,))
    if not lengths.sum():
        return PassageVectors([np.zeros((0, facts["dim"]), dtype=facts["dtype"]) for _ in lengths], facts["seconds"])
    rows = np.memmap(folder / _ROWS, dtype=facts["dtype"], mode="r").reshape(-1, facts["dim"])
    return PassageVectors(np.split(rows, np.cumsum(lengths)[:-1]), facts["seconds"])
