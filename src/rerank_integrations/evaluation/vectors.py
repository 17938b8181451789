"""A collection's token vectors, encoded once for all pipelines of one ColBERT model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.core.types import Passage

_TOKENS, _LENGTHS, _FACTS = "tokens.float16", "lengths.npy", "facts.json"
# Passages that are encoded between two writes: what memory must hold.
_AT_ONCE = 1024


@dataclass(frozen=True)
class PassageVectors:
    """Token vectors of passages, in their order.

    Parameters
    ----------
    vectors
        Float16, *Shape:* (tokens, dim) each; mapped from a file.
    seconds
        What encoding them took.
    """

    vectors: list[NDArray[np.float16]]
    seconds: float


def store_vectors(folder: Path, model: ColBERTModel, passages: Sequence[Passage]) -> None:
    """Encode passages into the files of a folder, unless it holds those of this model already."""
    facts = folder / _FACTS
    if facts.is_file() and json.loads(facts.read_text(encoding="utf-8"))["fingerprint"] == model.fingerprint:
        return
    folder.mkdir(parents=True, exist_ok=True)
    facts.unlink(missing_ok=True)
    start, lengths = time.perf_counter(), []
    with (folder / _TOKENS).open("wb") as stream, tqdm(total=len(passages), desc="encoding", disable=None) as bar:
        for first in range(0, len(passages), _AT_ONCE):
            some = model.encode_documents([passage.text for passage in passages[first : first + _AT_ONCE]])
            lengths += [len(vectors) for vectors in some]
            stream.write(np.concatenate(some).astype(np.float16).tobytes())
            bar.update(len(some))
    np.save(folder / _LENGTHS, np.array(lengths, dtype=np.int64))
    seconds = time.perf_counter() - start
    # Last, since it says that the others are whole.
    facts.write_text(json.dumps({"fingerprint": model.fingerprint, "dim": model.dim, "seconds": seconds}))


def open_vectors(folder: Path) -> PassageVectors:
    """Map what `store_vectors` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    lengths = np.load(folder / _LENGTHS)
    if not lengths.sum():
        return PassageVectors([np.zeros((0, facts["dim"]), dtype=np.float16) for _ in lengths], facts["seconds"])
    tokens = np.memmap(folder / _TOKENS, dtype=np.float16, mode="r").reshape(-1, facts["dim"])
    return PassageVectors(np.split(tokens, np.cumsum(lengths)[:-1]), facts["seconds"])
