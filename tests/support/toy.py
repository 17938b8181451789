"""A token encoder without weights: each word is one unit vector, made from its hash."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations import Hit

Floats = NDArray[np.float32]


class ToyEncoder:
    """Encoder that is reproducible to the bit, independent of batches, and needs no torch.

    A text of no words has no vectors. `encoded` and `asked` list every document and query that was encoded; there is no
    lock around them, which a forked child could find taken.
    """

    def __init__(self, name: str = "toy", *, dim: int = 16) -> None:
        self._name = name
        self._dim = dim
        self._vectors: dict[str, Floats] = {}
        self.encoded: list[str] = []
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._name} {self._dim}".encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(ToyEncoder, self._name, dim=self._dim), ()

    def options(self) -> dict[str, Any]:
        return {"name_or_path": self._name}

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        self.asked += texts
        return [self._encode(text) for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        self.encoded += texts
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Floats:
        rows = [self._word(word) for word in re.findall(r"\w+", text.lower())]
        return np.stack(rows) if rows else np.empty((0, self._dim), dtype=np.float32)

    def _word(self, word: str) -> Floats:
        if word not in self._vectors:
            seed = f"{self._name} {word}".encode("utf-8", "surrogatepass")
            raw = np.frombuffer(hashlib.shake_256(seed).digest(self._dim), dtype=np.uint8) - np.float32(127.5)
            self._vectors[word] = raw / np.linalg.norm(raw)
        return self._vectors[word]


def reference_scores(encoder: ToyEncoder, query: str, texts: Sequence[str]) -> list[float]:
    """Return MaxSim over vectors rounded to float16, token by token in float64: what an index should give."""
    (asked,) = ToyEncoder(encoder.name, dim=encoder.dim).encode_queries([query])
    scores = []
    for tokens in ToyEncoder(encoder.name, dim=encoder.dim).encode_documents(texts):
        stored = tokens.astype(np.float16).astype(np.float64)
        best = [max((float(word @ token) for token in stored), default=-1.0) for word in asked.astype(np.float64)]
        scores.append(sum(best))
    return scores


def check_hits(
    encoder: ToyEncoder,
    query: str,
    passages: Mapping[str, str],
    k: int,
    hits: Sequence[Hit],
    *,
    tolerance: float = 1e-5,
) -> None:
    """Assert that `hits` are the best `k` of `passages` (id to text), best first, equal scores by id.

    Scores may differ from the reference by `tolerance`, by default float32 rounding, so passages that close may stand
    in either order.
    """
    texts = list(dict.fromkeys(passages.values()))
    by_text = dict(zip(texts, reference_scores(encoder, query, texts), strict=True))
    score = {key: by_text[text] for key, text in passages.items()}
    ids = [hit.id for hit in hits]
    assert len(set(ids)) == len(ids) == min(k, len(passages))
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [(-hit.score, hit.id) for hit in hits] == sorted((-hit.score, hit.id) for hit in hits)
    for hit in hits:
        assert hit.text == passages[hit.id]
        assert abs(hit.score - score[hit.id]) < tolerance
    found = set(ids)
    left_out = [score[key] for key in passages if key not in found]
    assert not hits or max(left_out, default=-np.inf) <= hits[-1].score + tolerance
    # Equal texts have scores equal to the last bit, so the first ids among them are returned.
    for text in {passages[key] for key in ids}:
        alike = sorted(key for key, other in passages.items() if other == text)
        first = [key for key in ids if passages[key] == text]
        assert first == alike[: len(first)]


def child_env() -> dict[str, str]:
    """Return an environment in which a child process can import what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
