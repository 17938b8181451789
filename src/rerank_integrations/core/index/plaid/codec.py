"""The codec: a token vector as its nearest centroid, a byte for every 8 / nbits dimensions of the rest, and a scale.

The rest, or residual, is rotated first, so that every corpus has the same codebook; all of it happens in the rotated
space, where a query goes once. Follows ColBERTv2's residual compression (Santhanam et al., 2022, arXiv:2112.01488).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.forks import cached_property
from rerank_integrations.core.concurrency.lanes import in_parts
from rerank_integrations.core.index.plaid.clustering import NearestCentroid, kmeans, nearest, train_centroids
from rerank_integrations.core.index.plaid.jit import compiled
from rerank_integrations.core.index.plaid.kernels import nearest_codewords
from rerank_integrations.core.index.plaid.rules import MAX_CENTROIDS
from rerank_integrations.core.index.plaid.warming import require_compiled
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import IndexFormatError

_SAMPLES = 1 << 16
_ITERATIONS = 40


@functools.cache
def normal_codebook(nbits: int) -> Floats:
    """Return 256 codewords for standard normal vectors of 8 / `nbits` dimensions; always the same ones.

    Returns
    -------
    numpy.ndarray
        Float32, *Shape:* (256, 8 / nbits); read-only.
    """
    size = 8 // nbits
    samples = np.random.default_rng(0).standard_normal((_SAMPLES, size)).astype(np.float32)
    codewords = np.ascontiguousarray(kmeans(samples, 256, _ITERATIONS))
    codewords.setflags(write=False)
    return codewords


def random_rotation(dim: int, padded: int) -> Floats:
    """Return a fixed random map of *Shape:* (dim, padded) that keeps every dot product.

    A random orthogonal matrix of `padded` dimensions, less the rows that only padding would use.
    """
    normal = np.random.default_rng(1).standard_normal((padded, padded))
    orthogonal, upper = np.linalg.qr(normal)
    # Signs of the diagonal make the distribution uniform (Mezzadri, 2007, arXiv:math-ph/0609050).
    rotation: Floats = np.ascontiguousarray((orthogonal * np.sign(np.diag(upper)))[:dim], dtype=np.float32)
    return rotation


_BLOCK = 1 << 15
# Tokens whose lengths are computed in one part.
_MEASURED_TOKENS = 1 << 14
# Residuals of tokens to come may be longer than those of the sample.
_HEADROOM = 1.5


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
        Uint8 or uint16, *Shape:* (tokens,): in units of the codec's `step`.
    """

    centroids: NDArray[np.uint16]
    residuals: NDArray[np.uint8]
    scales: NDArray[Any]


def joined(codes: Sequence[Codes]) -> Codes:
    """Put codes one after the other; at least one of them."""
    return Codes(
        np.concatenate([one.centroids for one in codes]),
        np.concatenate([one.residuals for one in codes]),
        np.concatenate([one.scales for one in codes]),
    )


@dataclass(frozen=True, eq=False)
class Codec:
    """How tokens are compressed; immutable.

    Parameters
    ----------
    name
        Of its folder; what segments refer to.
    centroids
        Rotated; float32 of float16 precision, *Shape:* (centroids, padded dim).
    codebook
        What each byte stands for; float32, *Shape:* (256, dimensions a byte).
    rotation
        Float32, *Shape:* (dim, padded dim).
    step
        The unit of the scales.
    whole
        Whether the scale is the whole vector's, as in an index that colbert-ai made, which divides by the length; else
        it is the residual's, and chosen so that a token's product with itself stays as it was.
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
        """Bits a dimension."""
        return 8 // int(self.codebook.shape[1])

    @property
    def scale_type(self) -> type[np.uint8] | type[np.uint16]:
        """The dtype of the scales: whole vectors need finer ones."""
        return np.uint16 if self.whole else np.uint8

    @property
    def residual_bytes(self) -> int:
        """Bytes of a residual."""
        return int(self.rotation.shape[1] // self.codebook.shape[1])

    @cached_property
    def longest_centroid(self) -> float:
        """Return the largest length of a centroid."""
        return float(np.linalg.norm(self.centroids, axis=1).max())

    def rotate(self, vectors: NDArray[np.float16] | Floats) -> Floats:
        """Return vectors in the space of the centroids, float32, *Shape:* (vectors, padded dim)."""
        rotated: Floats = np.asarray(vectors, dtype=np.float32) @ self.rotation
        return rotated

    def encode(self, tokens: NDArray[np.float16] | Floats) -> Codes:
        """Compress token vectors of *Shape:* (tokens, dim)."""
        codes = Codes(
            np.empty(len(tokens), dtype=np.uint16),
            np.empty((len(tokens), self.residual_bytes), dtype=np.uint8),
            np.empty(len(tokens), dtype=self.scale_type),
        )
        for start in range(0, len(tokens), _BLOCK):
            rows = slice(start, start + _BLOCK)
            rotated = self.rotate(tokens[rows])
            centroids = self._nearest.find(rotated)
            codes.centroids[rows] = centroids
            codes.residuals[rows], scales = self._residuals(rotated, self.centroids[centroids])
            top = np.iinfo(self.scale_type).max
            codes.scales[rows] = np.clip(np.rint(scales / self.step), 0, top)
        return codes

    def decode(self, codes: Codes) -> Floats:
        """Return what the codes stand for, float32, *Shape:* (tokens, dim).

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

    @cached_property
    def _nearest(self) -> NearestCentroid:
        return NearestCentroid(self.centroids)

    def _residuals(self, tokens: Floats, centre: Floats) -> tuple[NDArray[np.uint8], Floats]:
        residual = tokens - centre
        if self.whole:
            places, coded = self._codewords(residual)
            return places, 1 / np.maximum(np.linalg.norm(centre + coded, axis=1), 1e-6)
        lengths = np.linalg.norm(residual, axis=1)
        unit = residual * (np.sqrt(residual.shape[1]) / np.maximum(lengths, 1e-12))[:, None]
        places, coded = self._codewords(unit)
        return places, _scales(tokens, residual, coded)

    def _codewords(self, residual: Floats) -> tuple[NDArray[np.uint8], Floats]:
        require_compiled(self.nbits)
        size = self.codebook.shape[1]
        pieces = np.ascontiguousarray(residual).reshape(-1, size)
        places = np.empty(len(pieces), dtype=np.uint8)
        columns = np.ascontiguousarray(self.codebook.T).reshape(-1)
        half_norms = (0.5 * (self.codebook**2).sum(axis=1)).astype(np.float32)
        numbers = np.arange(16, dtype=np.float32)

        def find(start: int, end: int) -> None:
            nearest_codewords(pieces[start:end], columns, half_norms, numbers, places[start:end])

        in_parts(find, len(pieces), _BLOCK)
        return places.reshape(len(residual), -1), self.codebook[places].reshape(residual.shape)


def train_codec(sample: NDArray[np.float16], tokens: int, nbits: int, *, show_progress: bool | None) -> Codec:
    """Make a codec for an index of `tokens` tokens from a sample of them, float16, *Shape:* (sample, dim)."""
    dim = sample.shape[1]
    rotation = random_rotation(dim, -(-dim // 8) * 8)
    rotated = np.empty((len(sample), rotation.shape[1]), dtype=np.float16)
    for start in range(0, len(sample), _BLOCK):
        rotated[start : start + _BLOCK] = sample[start : start + _BLOCK].astype(np.float32) @ rotation
    centroids = train_centroids(rotated, centroid_count(tokens), show_progress=show_progress)
    # As they will be stored: what is encoded before and after reopening is the same.
    centroids = centroids.astype(np.float16).astype(np.float32)
    some = rotated[:: max(1, len(rotated) // _BLOCK)].astype(np.float32)
    lengths = np.linalg.norm(some - centroids[nearest(some, centroids)], axis=1)
    # What the sample lacks is far from every centroid, however near all of the sample is.
    far = 0.8 * float(np.median(np.linalg.norm(some, axis=1)))
    longest = max(float(lengths.max(initial=0.0)), far, 1e-3) / np.sqrt(rotation.shape[1])
    step = _HEADROOM * longest / np.iinfo(np.uint8).max
    return Codec("", centroids, normal_codebook(nbits), rotation, step, whole=False, tokens=tokens)


def centroid_count(tokens: int) -> int:
    """Return how many centroids an index of `tokens` tokens has: 2^floor(log2(16 sqrt(tokens))), as colbert-ai."""
    return int(min(MAX_CENTROIDS, 2 ** np.floor(np.log2(16 * np.sqrt(tokens)))))


def _scales(tokens: Floats, residual: Floats, coded: Floats) -> Floats:
    square = np.einsum("ij,ij->i", coded, coded)
    least = np.einsum("ij,ij->i", coded, residual) / square
    # <centre + scale * coded, token> = <token, token>: errors along the token itself move every score, others cancel.
    along = np.einsum("ij,ij->i", coded, tokens)
    faithful = np.einsum("ij,ij->i", residual, tokens) / np.where(np.abs(along) < 1e-6, 1, along)
    scales: Floats = np.clip(faithful, 0.5 * least, 1.5 * least)
    return scales


def vector_lengths(centroids: Floats, codebook: Floats, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> Floats:
    """Return the length of each token's centroid and residual together, float32, *Shape:* (tokens,)."""
    lengths = np.empty(len(codes), dtype=np.float32)

    def measure(start: int, end: int) -> None:
        # Copies: for other integers, or arrays that cannot be written, the loop would be compiled once more.
        some, rest = np.array(codes[start:end], dtype=np.uint16), np.array(residuals[start:end])
        _measure(centroids, codebook, some, rest, lengths[start:end])

    in_parts(measure, len(codes), _MEASURED_TOKENS)
    return lengths


@compiled
def _measure(centroids: Any, codebook: Any, codes: Any, residuals: Any, lengths: Any) -> None:
    size = codebook.shape[1]
    for token in range(len(codes)):
        centroid = codes[token]
        square = 0.0
        for place in range(residuals.shape[1]):
            word = residuals[token, place]
            for i in range(size):
                value = centroids[centroid, place * size + i] + codebook[word, i]
                square += value * value
        lengths[token] = np.sqrt(square)
