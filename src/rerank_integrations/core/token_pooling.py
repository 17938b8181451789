"""Token pooling: a passage keeps fewer token vectors, the means of clusters of similar ones.

The method is that of Clavié, Chaffin and Adams (2024, arXiv:2409.14683), as sentence-transformers has it: Ward's
clustering by cosine, each cluster replaced by its mean of length 1, the passage's first token left alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from rerank_integrations.core.concurrency.cores import on_compute_thread
from rerank_integrations.core.maxsim import Floats
from rerank_integrations.errors import InvalidInputError

MAX_POOL_FACTOR = 100
# Rounding in bfloat16 moves a length by less. Pooled vectors have length 1, so others would get another scale.
_LENGTH_TOLERANCE = 0.02


def require_pool_factor(value: object) -> float:
    """Return `value` as a factor to pool by.

    Raises
    ------
    InvalidInputError
        Unless it is a number from 1 to 100.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= MAX_POOL_FACTOR:  # type: ignore[operator]
        raise InvalidInputError(f"pool_factor is {value!r}; expected a number from 1 to {MAX_POOL_FACTOR}")
    return float(value)  # type: ignore[arg-type]


def pool_factor_text(pool_factor: float) -> str:
    """Return a factor as a catalog records it: ``2`` or ``1.5``."""
    return f"{pool_factor:g}" if math.isclose(float(f"{pool_factor:g}"), pool_factor, rel_tol=0) else repr(pool_factor)


def pooled(vectors: Sequence[Floats], pool_factor: float) -> list[Floats]:
    """Pool the token vectors of passages.

    Parameters
    ----------
    vectors
        Float32, *Shape:* (tokens, dim) per passage; of length 1.
    pool_factor
        A passage of n tokens keeps 1 + (n - 1) // `pool_factor`, at least 2 of them if it has so many. With 1 the
        vectors are returned as they are.

    Returns
    -------
    list of numpy.ndarray
        Float32, C-contiguous, of length 1.

    Raises
    ------
    InvalidInputError
        If vectors are not of length 1.
    """
    if pool_factor == 1:
        return list(vectors)
    for number, passage in enumerate(vectors):
        lengths = np.linalg.norm(passage, axis=1)
        # Not so for NaN either, which clusters could not be made of.
        unit = np.abs(lengths - 1) <= _LENGTH_TOLERANCE
        if not unit.all():
            raise InvalidInputError(
                f"the model gave a vector of length {lengths[~unit][0]:g} for text {number}; expected vectors of "
                f"length 1, since pool_factor is {pool_factor:g} and pooling makes such"
            )
    # Torch computes on this thread alone, so that a forked process does not wait for threads that it lacks.
    return on_compute_thread("document", functools.partial(_pool, vectors, pool_factor))


def _pool(vectors: Sequence[Floats], pool_factor: float) -> list[Floats]:
    import torch
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    pooling = HierarchicalTokenPooling(pool_factor)
    with torch.inference_mode():
        tensors = pooling.pool([torch.from_numpy(passage) for passage in vectors])
    return [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]
