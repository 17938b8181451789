"""A compressed index of toy passages, made once per process and copied for each test."""

from __future__ import annotations

import atexit
import functools
import random
import shutil
import tempfile
from pathlib import Path

from toy import ToyEncoder, check_hits

from rerank_integrations import ColBERTIndex, Passage

# More passages than this and an index compresses itself.
ENOUGH = 4096
WORDS = ["red", "green", "blue", "fox", "frog", "whale", "the", "a", *map(str, range(40))]
# Passages that remain: enough for a search, few enough for a comparison after every step.
KEPT = {f"g{number}": Passage(f"g{number}", f"red {WORDS[number]} fox", {"n": number % 4}) for number in range(40)}
# With so few words each has its own centroid, which float16 rounds by up to 5e-4 of its length.
WORD_ERROR = 1e-3


def many(count: int, prefix: str = "g", seed: int = 0) -> list[Passage]:
    """Return short passages, the same ones for the same seed."""
    drawn = random.Random(seed)
    return [Passage(f"{prefix}{number}", " ".join(drawn.choices(WORDS, k=3)), {"n": number}) for number in range(count)]


def small_copy(path: Path) -> Path:
    """Copy a closed compressed index of the passages `KEPT` to the path."""
    shutil.copytree(_small(), path)
    return path


def large_copy(path: Path) -> Path:
    """Copy a closed compressed index of the passages ``many(ENOUGH)`` to the path."""
    shutil.copytree(_large(), path)
    return path


def check_nearly(query: str, passages: dict[str, Passage], k: int, index: ColBERTIndex) -> None:
    """Assert that the best `k` of `index` are those of `passages`, up to the error of compression."""
    texts = {key: passage.text for key, passage in passages.items()}
    hits = index.search(query, k)
    check_hits(ToyEncoder(), query, texts, k, hits, tolerance=WORD_ERROR * len(query.split()) + 1e-5)
    assert [Passage(hit.id, hit.text, hit.metadata) for hit in hits] == [passages[hit.id] for hit in hits]


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="grown-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _large() -> Path:
    path = _folder() / "large"
    with ColBERTIndex.create(path, ToyEncoder()) as index:
        index.upsert(many(ENOUGH))
        assert index.stats().kind == "plaid"
    return path


@functools.cache
def _small() -> Path:
    path = large_copy(_folder() / "small")
    with ColBERTIndex.open(path, ToyEncoder()) as index:
        index.upsert(KEPT.values())
        index.delete([passage.id for passage in many(ENOUGH) if passage.id not in KEPT])
        index.compact()
        assert (index.stats().kind, len(index)) == ("plaid", len(KEPT))
    return path
