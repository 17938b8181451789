"""An encoder whose texts are row numbers of a random array: clustered, noisy vectors like a real model's."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations import Passage

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RowEncoder:
    """Encoder of passage ``"7"`` as `length` vectors around some of `directions`; query ``"7"`` resembles it."""

    dim: int = 32
    length: int = 12
    directions: int = 300
    scale: float = 1.0

    @property
    def name(self) -> str:
        return "rows"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self.name}

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return [self._passage(int(text)) for text in texts]

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        return [self._query(int(text)) for text in texts]

    def _passage(self, number: int) -> Floats:
        random = np.random.default_rng([1, number])
        centre = _unit(np.random.default_rng(0).standard_normal((self.directions, self.dim)))
        chosen = centre[random.integers(0, self.directions, self.length)]
        noise = random.standard_normal((self.length, self.dim)) * 0.7 / np.sqrt(self.dim)
        vectors: Floats = (_unit(chosen + noise) * self.scale).astype(np.float32)
        return vectors

    def _query(self, number: int) -> Floats:
        random = np.random.default_rng([2, number])
        wanted = self._passage(number)[random.permutation(self.length)[:6]]
        noise = random.standard_normal(wanted.shape) * 0.7 / np.sqrt(self.dim)
        vectors: Floats = _unit(wanted / self.scale + noise).astype(np.float32)
        return vectors


def numbered(numbers: Sequence[int] | range) -> list[Passage]:
    """Return passages ``r0000``, ``r0001`` ... with their numbers in the metadata."""
    return [Passage(f"r{number:05}", str(number), {"n": number}) for number in numbers]


@functools.lru_cache(maxsize=4)
def _stored(encoder: RowEncoder, count: int) -> NDArray[np.float64]:
    rows = encoder.encode_documents([str(number) for number in range(count)])
    return np.concatenate(rows).astype(np.float16).astype(np.float64)


def brute_force(encoder: RowEncoder, query: str, count: int) -> NDArray[np.float64]:
    """Return MaxSim of a query with each of the passages 0 to `count`, over float16 vectors."""
    (asked,) = encoder.encode_queries([query])
    products = asked.astype(np.float64) @ _stored(encoder, count).T
    scores: NDArray[np.float64] = products.reshape(len(asked), count, -1).max(axis=2).sum(axis=0)
    return scores


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
