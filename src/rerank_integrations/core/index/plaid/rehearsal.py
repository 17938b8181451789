"""Every loop of compressing and searching called once, as they call it, on a few vectors."""

from __future__ import annotations

import numpy as np

from rerank_integrations.core.index.codecs import Codec
from rerank_integrations.core.index.plaid.codec import encode, random_rotation
from rerank_integrations.core.index.plaid.cpu_query import CpuQuery
from rerank_integrations.core.index.segments import Group, Part, PlaidSegment

_DIM = 16
_PASSAGES = 4


def rehearse(nbits: int) -> None:
    """Compile every loop that an index of so many bits needs, or load it."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((_PASSAGES, _DIM)).astype(np.float32)
    codebook = random.standard_normal((256, 8 // nbits)).astype(np.float32)
    codec = Codec("", vectors.copy(), codebook, random_rotation(_DIM, _DIM), 0.01, whole=False, tokens=_PASSAGES)
    codes = encode(codec, vectors)
    places = np.arange(_PASSAGES, dtype=np.int32)
    segment = PlaidSegment(
        "", "", codes.centroids, codes.residuals, codes.scales, np.arange(_PASSAGES + 1, dtype=np.int64), None, None
    )
    group = Group(codec, (Part(segment, places.astype(np.int64), places, _PASSAGES),))
    query = CpuQuery(codec, vectors)
    (kept,) = query.finalists(group, 1, 2, 1)
    query.scores(segment, kept)
