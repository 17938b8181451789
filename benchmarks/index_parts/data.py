"""Passages and queries of the index benchmark, their token vectors, and the results of exact MaxSim.

The vectors are the starter model's, encoded once and kept under the cache folder: for every 2,000 passages
``<key>.json`` (the texts), ``<key>.lengths.npy`` (int32, tokens a passage) and ``<key>.npy`` (float16, one row a
token), the key being a hash of the model and the texts. The exact scores, which take minutes, are kept there too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CHUNK = 2000
ADDED = 1000
# In this order; only every sixth of WordNet's glosses, which are many and short.
_SOURCES = (
    "eval/squad_dev/corpus.jsonl.gz",
    "eval/cranfield/corpus.jsonl.gz",
    "scale/foldoc.corpus.jsonl.gz",
    "eval/scifact/corpus.jsonl.gz",
    "scale/debian_pkg_en.corpus.jsonl.gz",
    "scale/wordnet_glosses.corpus.jsonl.gz",
)
# Passages whose products with all query tokens are in memory at the same time.
_SCORED = 100


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _texts(path: Path) -> list[str]:
    return [f"{row.get('title') or ''} {row['text']}".strip() for row in _rows(path)]


def passage_texts(data: Path, count: int) -> list[str]:
    """Return the first `count` passages, title and text joined by a space."""
    texts: list[str] = []
    for name in _SOURCES:
        all_texts = _texts(data / name)
        texts += all_texts[::6] if "wordnet" in name else all_texts
        if len(texts) >= count:
            break
    return texts[:count]


def added_texts(data: Path) -> list[str]:
    """Return 1,000 paragraphs spread over SQuAD's training set, to be added to an index of the others."""
    pairs = _rows(data / "train" / "squad_train.jsonl.gz")
    texts = list(dict.fromkeys(f"{row['title']} {row['positive']}" for row in pairs))
    return texts[:: len(texts) // ADDED][:ADDED]


def query_texts(data: Path) -> list[str]:
    """Return 106 questions of squad_dev and 106 queries of cranfield."""
    questions = [row["text"] for row in _rows(data / "eval" / "squad_dev" / "queries.jsonl.gz")][::99]
    topics = [row["text"] for row in _rows(data / "eval" / "cranfield" / "queries.jsonl.gz")][::2]
    return questions[:106] + topics[:106]


@dataclass(frozen=True)
class Queries:
    """Query texts and their vectors, float32, *Shape:* (tokens, dim)."""

    texts: list[str]
    vectors: list[Floats]


@dataclass(frozen=True)
class Corpus:
    """Passages, numbered from 0, read from chunks in the cache; pickles as the chunks' paths.

    `common` is the length of a constant vector that is added to each token vector before it is normalised.
    """

    stems: tuple[Path, ...]
    common: float = 0.0

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        pieces = [np.load(f"{stem}.lengths.npy").astype(np.int64) for stem in self.stems]
        return np.concatenate(pieces)

    def texts(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """Yield numbers and texts, a chunk in memory at a time."""
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            texts = json.loads(Path(f"{self.stems[chunk]}.json").read_text(encoding="utf-8"))
            first = chunk * CHUNK
            yield from list(enumerate(texts, first))[max(0, start - first) : end - first]

    def tokens(self, start: int, end: int) -> NDArray[np.float16]:
        """Return the vectors of passages `start` to `end`, one after the other; nothing stays mapped."""
        pieces = []
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            first = chunk * CHUNK
            bounds = np.concatenate([[0], np.cumsum(self.lengths[first : first + CHUNK])])
            rows = slice(bounds[max(0, start - first)], bounds[min(len(bounds) - 1, end - first)])
            pieces.append(np.array(np.load(f"{self.stems[chunk]}.npy", mmap_mode="r")[rows]))
        tokens = np.concatenate(pieces)
        return with_common(tokens, self.common).astype(np.float16) if self.common else tokens


def with_common(vectors: NDArray[Any], length: float) -> Floats:
    """Add a constant vector of some length to vectors, and normalise them: the geometry of many recent models."""
    constant = np.random.default_rng(1).standard_normal(vectors.shape[1]).astype(np.float32)
    constant *= np.float32(length) / np.linalg.norm(constant)
    moved: Floats = vectors.astype(np.float32) + constant
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def mean_cosine(vectors: NDArray[Any]) -> float:
    """Return the mean cosine of all pairs of unit vectors."""
    return float(np.square(vectors.astype(np.float32).mean(axis=0)).sum())


def common_length(vectors: NDArray[Any], cosine: float) -> float:
    """Return the length of the constant vector which gives `vectors` this mean cosine; 0 if they have it already."""
    lengths = np.geomspace(0.01, 20, 200)
    enough = (length for length in lengths if mean_cosine(with_common(vectors, length)) >= cosine)
    return 0.0 if mean_cosine(vectors) >= cosine else float(next(enough))


def chunk_stem(folder: Path, fingerprint: str, texts: Sequence[str]) -> Path:
    """Return the path of a chunk, without its suffixes."""
    return folder / hashlib.sha256(json.dumps([fingerprint, *texts]).encode()).hexdigest()[:24]


def cached_corpus(texts: Sequence[str], cache: Path, model: Any) -> Corpus:
    """Return the corpus, after encoding the chunks that are not in the cache."""
    folder = cache / "vectors"
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    stems = [chunk_stem(folder, model.fingerprint, chunk) for chunk in chunks]
    for number, (stem, chunk) in enumerate(zip(stems, chunks, strict=True), start=1):
        if not Path(f"{stem}.npy").exists():
            print(f"encoding passages, {number} of {len(chunks)} parts", flush=True)
            _encode_chunk(stem, chunk, model)
    return Corpus(tuple(stems))


def _encode_chunk(stem: Path, texts: Sequence[str], model: Any) -> None:
    vectors = model.encode_documents(list(texts))
    Path(f"{stem}.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    np.save(f"{stem}.lengths.npy", np.array([len(passage) for passage in vectors], dtype=np.int32))
    unfinished = Path(f"{stem}.part.npy")
    np.save(unfinished, np.concatenate(vectors).astype(np.float16))
    # Written last, since this file marks the chunk as complete.
    unfinished.rename(f"{stem}.npy")


def exact_scores(corpus: Corpus, queries: Queries) -> Floats:
    """Return MaxSim in float32 over the float16 vectors, cached beside them; *Shape:* (queries, passages)."""
    queries_hash = hashlib.sha256(b"".join(query.tobytes() for query in queries.vectors)).hexdigest()[:12]
    pieces = []
    for chunk, stem in enumerate(corpus.stems):
        path = Path(f"{stem}.scores-{queries_hash}.npy")
        if not path.exists():
            unfinished = path.with_suffix(".part.npy")
            start = chunk * CHUNK
            np.save(unfinished, _scores(corpus, queries, start, min(start + CHUNK, len(corpus.lengths))))
            unfinished.rename(path)
        pieces.append(np.load(path))
    return np.concatenate(pieces, axis=1)


def _scores(corpus: Corpus, queries: Queries, first: int, last: int) -> Floats:
    query_tokens = np.concatenate(queries.vectors)
    bounds = np.cumsum([0, *(len(query) for query in queries.vectors)])[:-1]
    scores = np.empty((len(queries.vectors), last - first), dtype=np.float32)
    for start in range(first, last, _SCORED):
        end = min(last, start + _SCORED)
        lengths = corpus.lengths[start:end]
        products = corpus.tokens(start, end).astype(np.float32) @ query_tokens.T
        largest = np.maximum.reduceat(products, np.cumsum(lengths) - lengths, axis=0)
        scores[:, start - first : end - first] = np.add.reduceat(largest, bounds, axis=1).T
    return scores


def best(scores: Floats, k: int, allowed: NDArray[np.bool_] | None = None) -> list[list[int]]:
    """Return the numbers of the best `k` passages of each row, among those that are `allowed`."""
    numbers = np.arange(scores.shape[1]) if allowed is None else np.flatnonzero(allowed)
    best_numbers: list[list[int]] = []
    for row in scores:
        order = np.argsort(-row[numbers], kind="stable")[:k]
        best_numbers.append(numbers[order].tolist())
    return best_numbers


def recall(hits: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]], k: int) -> float:
    """Return the mean share of the exact best `k` among the `k` hits."""
    shares = [len({*a[:k]} & {*b[:k]}) / min(k, len(b)) for a, b in zip(hits, wanted, strict=True)]
    return float(np.mean(shares))
