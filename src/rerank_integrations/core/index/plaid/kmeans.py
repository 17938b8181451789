"""faiss's k-means on one thread: its OpenMP teams spin while others work, and a forked child waits for one for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import faiss
import numpy as np

from rerank_integrations.core.maxsim import Floats


def kmeans(vectors: Floats, count: int, iterations: int) -> Floats:
    """Cluster vectors; always the same way.

    Parameters
    ----------
    vectors
        Float32, *Shape:* (vectors, dim).

    Returns
    -------
    numpy.ndarray
        Float32, *Shape:* (centroids, dim): `count`, or the vectors themselves if there are no more.
    """
    if count == 0 or len(vectors) <= count:
        return vectors[:count]
    # faiss warns below 39 vectors a centroid; the sample is what there is.
    clustering = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=iterations,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    with _one_thread():
        clustering.train(np.ascontiguousarray(vectors))
    return np.asarray(clustering.centroids, dtype=np.float32)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # The number is the calling thread's own.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
