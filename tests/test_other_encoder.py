"""An index with the user's own encoder: it needs no torch, so this runs on every Python."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_integrations import ColBERTIndex, IndexReadOnlyError, InvalidInputError, ModelMismatchError

TEXTS = {
    "profit": "The net profit grew in the year.",
    "river": "The river rose after the rain.",
    "zip": "A zip file is read without extracting it.",
    "bread": "Bread needs flour, water, salt and yeast.",
}


class WordEncoder:
    """Encoder of one unit vector per word, made from the word's hash."""

    def __init__(self, salt: str = "") -> None:
        self.salt = salt

    name = "words"
    dim = 32

    @property
    def fingerprint(self) -> str:
        return f"words{self.salt}"

    def options(self) -> dict[str, Any]:
        return {"name_or_path": "words"}

    def encode_queries(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [self._encode(text) for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[npt.NDArray[np.float32]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> npt.NDArray[np.float32]:
        rows = []
        for word in text.lower().strip(".").split():
            seed = int.from_bytes(hashlib.sha256((self.salt + word).encode()).digest()[:8], "little")
            row = np.random.default_rng(seed).standard_normal(self.dim)
            rows.append(row / np.linalg.norm(row))
        return np.asarray(rows, dtype=np.float32).reshape(-1, self.dim)


def _naive(query: str, texts: dict[str, str]) -> list[tuple[str, float]]:
    encoder = WordEncoder()
    vectors = encoder.encode_queries([query])[0]
    scores = {
        name: float((vectors @ encoder.encode_documents([text])[0].T).max(axis=1).sum()) for name, text in texts.items()
    }
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _check(index: ColBERTIndex, texts: dict[str, str]) -> None:
    for query in ("net profit", "river water", "read a zip file"):
        expected = _naive(query, texts)
        hits = index.search(query, 10)
        assert [hit.id for hit in hits] == [name for name, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=5e-3)


def test_search_is_maxsim_through_every_change(tmp_path: Path) -> None:
    texts = dict(TEXTS)
    with ColBERTIndex.create(tmp_path / "index", WordEncoder()) as index:
        index.upsert({"id": name, "text": text, "metadata": {"length": len(text)}} for name, text in texts.items())
        _check(index, texts)
        texts["bread"] = "Net profit of the bread."
        index.upsert([{"id": "bread", "text": texts["bread"]}])
        _check(index, texts)
        assert index.delete(["river", "unknown"]) == 1
        del texts["river"]
        _check(index, texts)
        index.compact()
        _check(index, texts)
    with ColBERTIndex.open(tmp_path / "index", WordEncoder(), read_only=True) as index:
        _check(index, texts)
        assert index.verify().passages == len(index) == 3
        assert [hit.id for hit in index.search("profit", where={"length": {"$gt": 40}})] == ["zip"]
        with pytest.raises(IndexReadOnlyError):
            index.delete(["zip"])
        with pytest.raises(InvalidInputError, match=r"\$near"):
            index.search("profit", where={"length": {"$near": 1}})


def test_an_encoder_of_another_space_is_refused(tmp_path: Path) -> None:
    ColBERTIndex.create(tmp_path / "index", WordEncoder()).close()
    with pytest.raises(ModelMismatchError):
        ColBERTIndex.open(tmp_path / "index", WordEncoder(salt="other"))


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_other_encoder import *\n"
        f"test_search_is_maxsim_through_every_change(Path({str(tmp_path)!r}))\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.split() == ["False", "False"]
