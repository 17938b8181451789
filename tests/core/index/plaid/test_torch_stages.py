"""The torch stages of PLAID search agree with the numba ones, and with a plain NumPy reference."""

from __future__ import annotations

import dataclasses
import functools
import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rerank_integrations.core.index.plaid.compression import random_rotation
from rerank_integrations.core.index.plaid.cpu_query import CpuQuery
from rerank_integrations.core.index.plaid.torch_stages import TorchQuery, Uploads
from rerank_integrations.core.index.storage.codecs import Codec, Codes
from rerank_integrations.core.index.storage.segments import PlaidSegment
from rerank_integrations.core.maxsim import Floats

CENTROIDS = 203
rotation = functools.cache(random_rotation)
NO_GPU = "torch finds no CUDA device; the same checks run on its CPU device"


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU))]
)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def unit(vectors: NDArray[np.float64]) -> Floats:
    rows: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def make_codec(rng: np.random.Generator, dim: int, nbits: int, whole: bool) -> Codec:
    """Return a codec whose decompressed vectors are about as long as ColBERT's unit vectors."""
    padded = -(-dim // 8) * 8
    centroids = unit(rng.standard_normal((CENTROIDS, padded))).astype(np.float16).astype(np.float32)
    codebook = rng.standard_normal((256, 8 // nbits)).astype(np.float32)
    step = 0.8 / 255 / np.sqrt(padded)
    if whole:
        codebook, step = (codebook * np.float32(0.4 / np.sqrt(padded))), 1 / 50_000
    return Codec("c", centroids, codebook, rotation(dim, padded), float(step), whole, 0)


def make_segment(rng: np.random.Generator, codec: Codec, lengths: list[int]) -> PlaidSegment:
    tokens = sum(lengths)
    codes = rng.integers(0, CENTROIDS, tokens).astype(np.uint16)
    residuals = rng.integers(0, 256, (tokens, codec.residual_bytes)).astype(np.uint8)
    top = np.iinfo(codec.scale_type).max
    scales = rng.integers(top // 2, top, tokens).astype(codec.scale_type)
    for array in (codes, residuals, scales):
        # As mapped files are.
        array.setflags(write=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return PlaidSegment("s", "c", codes, residuals, scales, offsets, None, None)


def some_lengths(rng: np.random.Generator, passages: int) -> list[int]:
    lengths = rng.integers(0, 30, passages)
    lengths[[0, passages // 2, passages - 1]] = 0
    return [int(length) for length in lengths]


def all_places(segment: PlaidSegment) -> NDArray[np.int32]:
    return np.arange(len(segment.offsets) - 1, dtype=np.int32)


def expected_scores(codec: Codec, segment: PlaidSegment, query: Floats, places: NDArray[np.int32]) -> list[float]:
    found = []
    for place in places:
        rows = slice(segment.offsets[place], segment.offsets[place + 1])
        if rows.start == rows.stop:
            found.append(-float(len(query)))
            continue
        tokens = codec.decode(Codes(segment.codes[rows], segment.residuals[rows], segment.scales[rows]))
        similarities = query.astype(np.float64) @ tokens.astype(np.float64).T
        found.append(float(similarities.max(axis=1).sum()))
    return found


@pytest.mark.parametrize("count", [1, 17])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize("dim", [20, 128])
def test_every_stage_agrees(device: str, dim: int, nbits: int, whole: bool, count: int) -> None:
    rng = np.random.default_rng([dim, nbits, whole, count])
    codec = make_codec(rng, dim, nbits, whole)
    query = unit(rng.standard_normal((count, dim)))
    ours, numba = TorchQuery(codec, query, device), CpuQuery(codec, query)
    by_centroids = codec.centroids.astype(np.float64) @ codec.rotate(query).astype(np.float64).T
    for passages in (40, 7):
        segment = make_segment(rng, codec, some_lengths(rng, passages))
        for places in (all_places(segment), all_places(segment)[1::3], all_places(segment)[2:5]):
            scores = ours.scores(segment, places)
            assert scores.dtype == np.float64
            np.testing.assert_allclose(scores, expected_scores(codec, segment, query, places), atol=1e-4, rtol=0)
            np.testing.assert_allclose(scores, numba.scores(segment, places), atol=1e-4, rtol=0)
            by_passage = [by_centroids[segment.codes[segment.offsets[p] : segment.offsets[p + 1]]] for p in places]
            expected = [np.maximum(rows, 0).max(axis=0, initial=0).sum() for rows in by_passage]
            np.testing.assert_allclose(ours.approximate(segment, places), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("wanted", [1, 4, CENTROIDS, CENTROIDS + 1])
@pytest.mark.parametrize("count", [1, 17, 40])
def test_the_best_centroids_are_marked(device: str, count: int, wanted: int) -> None:
    rng = np.random.default_rng([count, wanted])
    codec = make_codec(rng, 16, 2, False)
    query = unit(rng.standard_normal((count, 16)))
    marks = TorchQuery(codec, query, device).probed(wanted)
    assert marks.dtype == np.uint8
    assert set(marks) <= {0, 1}
    scores = codec.centroids.astype(np.float64) @ codec.rotate(query).astype(np.float64).T
    bars = -np.sort(-scores, axis=0)[min(wanted, CENTROIDS) - 1]
    marked = marks.astype(bool)
    assert marked[(scores > bars + 1e-5).any(axis=1)].all()
    assert not marked[(scores < bars - 1e-5).all(axis=1)].any()


def test_of_equal_centroids_as_many_as_wanted_are_marked(device: str) -> None:
    rng = np.random.default_rng(0)
    first = make_codec(rng, 16, 2, False)
    same = np.repeat(first.centroids[:1], CENTROIDS, axis=0)
    codec = Codec("c", same, first.codebook, first.rotation, first.step, False, 0)
    assert TorchQuery(codec, unit(rng.standard_normal((1, 16))), device).probed(5).sum() == 5


def test_passages_without_tokens(device: str) -> None:
    rng = np.random.default_rng(1)
    codec = make_codec(rng, 16, 2, False)
    segment = make_segment(rng, codec, [0, 0, 0])
    ours = TorchQuery(codec, unit(rng.standard_normal((9, 16))), device)
    assert ours.scores(segment, all_places(segment)).tolist() == [-9.0] * 3
    assert ours.approximate(segment, all_places(segment)).tolist() == [0.0] * 3


def test_nothing_asked_for(device: str) -> None:
    rng = np.random.default_rng(2)
    codec = make_codec(rng, 16, 2, False)
    segment = make_segment(rng, codec, [3, 2])
    none = np.empty(0, dtype=np.int32)
    ours = TorchQuery(codec, unit(rng.standard_normal((3, 16))), device)
    assert ours.scores(segment, none).shape == ours.approximate(segment, none).shape == (0,)
    empty = TorchQuery(codec, np.empty((0, 16), dtype=np.float32), device)
    assert empty.scores(segment, all_places(segment)).tolist() == [0.0, 0.0]


def test_scores_below_zero_are_kept_by_maxsim_alone(device: str) -> None:
    rng = np.random.default_rng(3)
    codec = make_codec(rng, 128, 4, False)
    segment = make_segment(rng, codec, [1] * 30)
    query = unit(rng.standard_normal((1, 128)))
    ours = TorchQuery(codec, query, device)
    places = all_places(segment)
    scores = ours.scores(segment, places)
    assert (scores < -0.01).any()
    np.testing.assert_allclose(scores, expected_scores(codec, segment, query, places), atol=1e-4, rtol=0)
    centres = codec.centroids[segment.codes] @ codec.rotate(query)[0]
    np.testing.assert_allclose(ours.approximate(segment, places), np.maximum(centres, 0), atol=1e-5, rtol=0)


def test_a_damaged_segment_is_refused(device: str) -> None:
    rng = np.random.default_rng(9)
    codec = make_codec(rng, 16, 2, False)
    sound = make_segment(rng, codec, [3, 2])
    codes = np.array([0, 1, CENTROIDS, 3, 4], dtype=np.uint16)
    damaged = dataclasses.replace(sound, codes=codes)
    ours = TorchQuery(codec, unit(rng.standard_normal((3, 16))), device)
    with pytest.raises(IndexError, match=f"centroid {CENTROIDS} of {CENTROIDS}"):
        ours.scores(damaged, all_places(damaged))
    with pytest.raises(IndexError, match=f"centroid {CENTROIDS} of {CENTROIDS}"):
        ours.approximate(damaged, all_places(damaged))
    assert len(ours.scores(sound, all_places(sound))) == 2


@pytest.mark.parametrize("block_bytes", [1, 5_000, 40_000])
def test_the_size_of_a_block_changes_nothing(device: str, block_bytes: int) -> None:
    rng = np.random.default_rng(4)
    codec = make_codec(rng, 128, 2, True)
    query = unit(rng.standard_normal((20, 128)))
    segment = make_segment(rng, codec, some_lengths(rng, 60))
    whole, parts = TorchQuery(codec, query, device), TorchQuery(codec, query, device, block_bytes=block_bytes)
    for places in (all_places(segment), all_places(segment)[::2]):
        np.testing.assert_allclose(parts.scores(segment, places), whole.scores(segment, places), atol=1e-5, rtol=0)
        want = whole.approximate(segment, places)
        np.testing.assert_allclose(parts.approximate(segment, places), want, atol=1e-5, rtol=0)


@pytest.fixture(params=[False, True])
def tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = request.param
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def test_less_precision_that_others_allow_is_not_taken(device: str, tf32: None) -> None:
    rng = np.random.default_rng(5)
    codec = make_codec(rng, 128, 2, False)
    query = unit(rng.standard_normal((32, 128)))
    segment = make_segment(rng, codec, some_lengths(rng, 50))
    places = all_places(segment)
    with torch.autocast(device, dtype=torch.bfloat16):
        scores = TorchQuery(codec, query, device).scores(segment, places)
        assert torch.is_autocast_enabled(device)
    np.testing.assert_allclose(scores, expected_scores(codec, segment, query, places), atol=1e-4, rtol=0)


def test_threads_share_what_is_uploaded_and_agree(device: str) -> None:
    rng = np.random.default_rng(7)
    codec = make_codec(rng, 128, 2, False)
    segment = make_segment(rng, codec, some_lengths(rng, 50))
    query = unit(rng.standard_normal((32, 128)))
    places, found, start = all_places(segment), [], threading.Barrier(6)

    def ask() -> None:
        start.wait()
        found.append(TorchQuery(codec, query, device).scores(segment, places))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for scores in found:
        np.testing.assert_allclose(scores, expected_scores(codec, segment, query, places), atol=1e-4, rtol=0)


def test_an_object_is_uploaded_once_and_forgotten_with_it() -> None:
    rng = np.random.default_rng(8)
    held = [make_segment(rng, make_codec(rng, 16, 2, False), [3])]
    calls, alive, start = [], [0], threading.Barrier(6)

    class Copy:
        def __init__(self) -> None:
            alive[0] += 1

        def __del__(self) -> None:
            alive[0] -= 1

    def upload(segment: PlaidSegment, device: torch.device) -> Copy:
        calls.append(device)
        time.sleep(0.05)
        return Copy()

    uploads: Uploads[PlaidSegment, Copy] = Uploads(upload)

    def ask() -> None:
        start.wait()
        uploads.get(held[0], torch.device("cpu"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [torch.device("cpu")]
    uploads.get(held[0], torch.device("meta"))
    assert len(calls) == 2
    assert alive == [2]
    held.clear()
    gc.collect()
    assert alive == [0]
