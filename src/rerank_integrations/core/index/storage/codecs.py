"""Compressed token vectors as arrays: the codes of each token, and the codec that says what they stand for.

Plain NumPy: compressing, training and searching, which need compiled loops, are in `plaid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import cached_property
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError

Scales: TypeAlias = "NDArray[np.uint8 | np.uint16]"


@dataclass(frozen=True)
class Codes:
    """Compressed tokens.

    Parameters
    ----------
    centroids
        Uint16, *Shape:* (tokens,).
    residuals
        Uint8, *Shape:* (tokens, bytes).
    scales
        Uint8 or uint16, *Shape:* (tokens,), in units of the codec's `step`.
    """

    centroids: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    scales: Scales


def joined(codes: Sequence[Codes]) -> Codes:
    """Join codes one after the other; there must be at least one."""
    return Codes(
        np.concatenate([block.centroids for block in codes]),
        np.concatenate([block.residuals for block in codes]),
        np.concatenate([block.scales for block in codes]),
    )


@dataclass(frozen=True, eq=False)
class Codec:
    """An immutable codec: how token vectors are compressed.

    Parameters
    ----------
    name
        The name of its folder, by which segments refer to it.
    centroids
        Rotated centroids; float32 of float16 precision, *Shape:* (centroids, padded dim).
    codebook
        The values that each byte stands for; float32, *Shape:* (256, dimensions per byte).
    rotation
        Float32, *Shape:* (dim, padded dim).
    step
        The unit of the scales.
    whole
        Whether the scale is the whole vector's, as in an index that colbert-ai made, which divides by the length. Else
        it is the residual's, chosen so that a token's product with itself stays as it was.
    tokens
        How many tokens the index held when it was trained.
    """

    name: str
    centroids: Floats
    codebook: Floats
    rotation: Floats
    step: float
    whole: bool
    tokens: int

    @property
    def nbits(self) -> int:
        """Bits per dimension."""
        return 8 // int(self.codebook.shape[1])

    @property
    def scale_type(self) -> type[np.uint8] | type[np.uint16]:
        """The dtype of the scales; whole vectors need finer ones."""
        return np.uint16 if self.whole else np.uint8

    @property
    def residual_bytes(self) -> int:
        """Bytes per residual."""
        return int(self.rotation.shape[1] // self.codebook.shape[1])

    @cached_property
    def longest_centroid(self) -> float:
        """Return the length of the longest centroid."""
        return float(np.linalg.norm(self.centroids, axis=1).max())

    def rotate(self, vectors: NDArray[np.float16] | Floats) -> Floats:
        """Return vectors in the space of the centroids, float32, *Shape:* (vectors, padded dim)."""
        rotated: Floats = np.asarray(vectors, dtype=np.float32) @ self.rotation
        return rotated

    def decode(self, codes: Codes) -> Floats:
        """Return the vectors that the codes stand for, float32, *Shape:* (tokens, dim).

        Raises
        ------
        IndexFormatError
            If a token names a centroid that does not exist.
        """
        if codes.centroids.max(initial=0) >= len(self.centroids):
            raise IndexFormatError(f"a token names a centroid that the codec {self.name} does not have")
        residual = self.codebook[codes.residuals].reshape(len(codes.centroids), self.centroids.shape[1])
        scales = (codes.scales.astype(np.float32) * np.float32(self.step))[:, None]
        centre = self.centroids[codes.centroids]
        rotated = (centre + residual) * scales if self.whole else centre + residual * scales
        decoded: Floats = rotated @ self.rotation.T
        return decoded
