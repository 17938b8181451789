"""Token vectors of 48 to 1,024 dimensions: stored, searched and reopened, small and compressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from row_encoder import RowEncoder, brute_force, numbered

from rerank_integrations import ColBERTIndex

COUNT = 400
DIMENSIONS = [48, 96, 128, 256, 768, 1024]


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_a_small_index_is_exact(tmp_path: Path, dim: int) -> None:
    encoder = RowEncoder(dim=dim, length=7, directions=40)
    with ColBERTIndex.create(tmp_path / "index", encoder) as index:
        index.upsert(numbered(range(COUNT)))
    with ColBERTIndex.open(tmp_path / "index", encoder, read_only=True) as index:
        scores = brute_force(encoder, "5", COUNT)
        hits = index.search("5", k=10)
        assert index.verify().passages == COUNT
    expected = np.sort(scores)[::-1][:10]
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=2e-3)
    assert hits[0].id == f"r{int(scores.argmax()):05}"


@pytest.mark.slow
@pytest.mark.parametrize("dim", [48, 256, 1024])
def test_a_compressed_index_finds_the_best(tmp_path: Path, dim: int) -> None:
    encoder, count, queries = RowEncoder(dim=dim, length=3, directions=24), 4200, [str(n) for n in range(40)]
    with ColBERTIndex.create(tmp_path / "index", encoder, nbits=2) as index:
        index.upsert(numbered(range(count)))
        assert index.stats().kind == "plaid"
        before = index.search_many(queries, k=10)
    with ColBERTIndex.open(tmp_path / "index", encoder, read_only=True) as index:
        after = index.search_many(queries, k=10)
        assert index.verify().passages == count
    assert [[(hit.id, hit.score) for hit in hits] for hits in after] == [
        [(hit.id, hit.score) for hit in hits] for hits in before
    ]
    shared = []
    for query, hits in zip(queries, after, strict=True):
        best = np.argsort(-brute_force(encoder, query, count))[:10]
        shared.append(len({f"r{number:05}" for number in best} & {hit.id for hit in hits}) / 10)
    # Recall at 10 of 2 bits; half a dozen vectors of noise are found by chance alone at .002.
    assert np.mean(shared) >= 0.6
