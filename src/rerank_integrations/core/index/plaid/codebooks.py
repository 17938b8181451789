"""Codebooks for residuals: each byte stands for 8 / nbits dimensions at once.

Vector quantisation of a rotated residual. After a random rotation its coordinates are close to independent normal
numbers (as in RaBitQ, Gao and Long, 2024, arXiv:2405.12497, and TurboQuant, Zandieh et al., 2025, arXiv:2504.19874), so
one codebook of the normal distribution serves every corpus. 256 codewords in 4 dimensions lose less than 4 Lloyd-Max
levels in each of them, at the same 2 bits and with the same one look-up a byte.
"""

from __future__ import annotations

import functools

import numpy as np

from rerank_integrations.core.index.plaid.kmeans import kmeans
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
    # Signs of the diagonal make the distribution uniform (Mezzadri, 2007, arXiv:math-ph/0609050).
    rotation: Floats = np.ascontiguousarray((orthogonal * np.sign(np.diag(upper)))[:dim], dtype=np.float32)
    return rotation
