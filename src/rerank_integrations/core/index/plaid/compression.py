"""Compression: a token vector becomes a centroid, a byte per 8 / nbits dimensions of the residual, and a scale.

Vectors are rotated first, so that one codebook suits the residuals of every corpus. Everything happens in the rotated
space, into which a query is rotated once. The method follows ColBERTv2's residual compression (Santhanam et al., 2022,
arXiv:2112.01488). `codecs` says what the codes stand for.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.concurrency.lanes import in_parts
from rerank_integrations.core.index.plaid.centroid_kernels import measure_lengths, nearest_codewords
from rerank_integrations.core.index.plaid.clustering import NearestCentroid, kmeans, nearest, train_centroids
from rerank_integrations.core.index.plaid.warming import require_compiled
from rerank_integrations.core.index.storage.array_rules import MAX_CENTROIDS
from rerank_integrations.core.index.storage.codecs import Codec, Codes
from rerank_integrations.core.maxsim import Floats

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
    # Multiplying by the signs of the diagonal makes the distribution uniform (Mezzadri, 2007, arXiv:math-ph/0609050).
    rotation: Floats = np.ascontiguousarray((orthogonal * np.sign(np.diag(upper)))[:dim], dtype=np.float32)
    return rotation


_BLOCK = 1 << 15
# The number of tokens whose lengths one thread computes at a time.
_MEASURED_TOKENS = 1 << 14
# Residuals of later tokens may be longer than those of the sample.
_HEADROOM = 1.5


# The search for the nearest centroid is prepared once per open codec.
_NEAREST: weakref.WeakKeyDictionary[Codec, NearestCentroid] = weakref.WeakKeyDictionary()


def encode(codec: Codec, tokens: NDArray[np.float16] | Floats) -> Codes:
    """Compress token vectors of *Shape:* (tokens, dim)."""
    nearest_centroid = _nearest_centroid(codec)
    codes = Codes(
        np.empty(len(tokens), dtype=np.uint16),
        np.empty((len(tokens), codec.residual_bytes), dtype=np.uint8),
        np.empty(len(tokens), dtype=codec.scale_type),
    )
    for start in range(0, len(tokens), _BLOCK):
        rows = slice(start, start + _BLOCK)
        rotated = codec.rotate(tokens[rows])
        centroids = nearest_centroid.find(rotated)
        codes.centroids[rows] = centroids
        codes.residuals[rows], scales = _residuals(codec, rotated, codec.centroids[centroids])
        top = np.iinfo(codec.scale_type).max
        codes.scales[rows] = np.clip(np.rint(scales / codec.step), 0, top)
    return codes


def _nearest_centroid(codec: Codec) -> NearestCentroid:
    search = _NEAREST.get(codec)
    if search is None:
        # Another thread that comes at the same time makes an equal one.
        search = _NEAREST[codec] = NearestCentroid(codec.centroids)
    return search


def _residuals(codec: Codec, tokens: Floats, centre: Floats) -> tuple[NDArray[np.uint8], Floats]:
    residual = tokens - centre
    if codec.whole:
        places, coded = _codewords(codec, residual)
        return places, 1 / np.maximum(np.linalg.norm(centre + coded, axis=1), 1e-6)
    lengths = np.linalg.norm(residual, axis=1)
    unit = residual * (np.sqrt(residual.shape[1]) / np.maximum(lengths, 1e-12))[:, None]
    places, coded = _codewords(codec, unit)
    return places, _scales(tokens, residual, coded)


def _codewords(codec: Codec, residual: Floats) -> tuple[NDArray[np.uint8], Floats]:
    require_compiled(codec.nbits)
    size = codec.codebook.shape[1]
    pieces = np.ascontiguousarray(residual).reshape(-1, size)
    places = np.empty(len(pieces), dtype=np.uint8)
    columns = np.ascontiguousarray(codec.codebook.T).reshape(-1)
    half_norms = (0.5 * (codec.codebook**2).sum(axis=1)).astype(np.float32)
    numbers = np.arange(16, dtype=np.float32)

    def find(start: int, end: int) -> None:
        nearest_codewords(pieces[start:end], columns, half_norms, numbers, places[start:end])

    in_parts(find, len(pieces), _BLOCK)
    return places.reshape(len(residual), -1), codec.codebook[places].reshape(residual.shape)


def train_codec(sample: NDArray[np.float16], tokens: int, nbits: int, *, show_progress: bool | None) -> Codec:
    """Train a codec for an index of `tokens` tokens on a sample of them, float16, *Shape:* (sample, dim)."""
    dim = sample.shape[1]
    rotation = random_rotation(dim, -(-dim // 8) * 8)
    rotated = np.empty((len(sample), rotation.shape[1]), dtype=np.float16)
    for start in range(0, len(sample), _BLOCK):
        rotated[start : start + _BLOCK] = sample[start : start + _BLOCK].astype(np.float32) @ rotation
    centroids = train_centroids(rotated, centroid_count(tokens), show_progress=show_progress)
    # Rounded as they are stored, so that encoding gives the same before and after reopening.
    centroids = centroids.astype(np.float16).astype(np.float32)
    measured = rotated[:: max(1, len(rotated) // _BLOCK)].astype(np.float32)
    lengths = np.linalg.norm(measured - centroids[nearest(measured, centroids)], axis=1)
    # Vectors that the sample lacks are far from every centroid, however near the whole sample is.
    far = 0.8 * float(np.median(np.linalg.norm(measured, axis=1)))
    longest = max(float(lengths.max(initial=0.0)), far, 1e-3) / np.sqrt(rotation.shape[1])
    step = _HEADROOM * longest / np.iinfo(np.uint8).max
    return Codec("", centroids, normal_codebook(nbits), rotation, step, whole=False, tokens=tokens)


def centroid_count(tokens: int) -> int:
    """Return how many centroids an index of `tokens` tokens has: 2^floor(log2(16 sqrt(tokens))), as colbert-ai."""
    return int(min(MAX_CENTROIDS, 2 ** np.floor(np.log2(16 * np.sqrt(tokens)))))


def _scales(tokens: Floats, residual: Floats, coded: Floats) -> Floats:
    square = np.einsum("ij,ij->i", coded, coded)
    least = np.einsum("ij,ij->i", coded, residual) / square
    # Solves <centre + scale * coded, token> = <token, token>: errors along the token itself move every score, while
    # other errors cancel.
    along = np.einsum("ij,ij->i", coded, tokens)
    faithful = np.einsum("ij,ij->i", residual, tokens) / np.where(np.abs(along) < 1e-6, 1, along)
    scales: Floats = np.clip(faithful, 0.5 * least, 1.5 * least)
    return scales


def vector_lengths(centroids: Floats, codebook: Floats, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> Floats:
    """Return the length of each token's centroid and residual together, float32, *Shape:* (tokens,)."""
    lengths = np.empty(len(codes), dtype=np.float32)

    def measure(start: int, end: int) -> None:
        # Copies, since numba would compile the loop once more for other integers and for read-only arrays.
        centroid_numbers, residual_bytes = np.array(codes[start:end], dtype=np.uint16), np.array(residuals[start:end])
        measure_lengths(centroids, codebook, centroid_numbers, residual_bytes, lengths[start:end])

    in_parts(measure, len(codes), _MEASURED_TOKENS)
    return lengths
