"""BGE-M3's ColBERT head, compared with its few lines of arithmetic over the bare encoder of transformers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.colbert_families import write_bge_m3
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from rerank_integrations import (
    CheckpointError,
    ColBERTIndex,
    ColBERTModel,
    ColBERTScorer,
    Passage,
    TruncationWarning,
    rerank,
)

TEXTS = [ENGLISH[3], "", CHINESE[1], "a", LONG_TEXT, "<s> a text with the marker's own letters </s>"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bge_m3(tmp_path_factory.mktemp("bge_m3"), dim=80)


def model_of(path: Path, **arguments: object) -> ColBERTModel:
    return ColBERTModel(path, **{"dtype": "float32", "device": "cpu"} | arguments)  # type: ignore[arg-type]


def vectors_of(path: Path, text: str, length: int = 256) -> NDArray[np.float32]:
    """Return what FlagEmbedding computes: all tokens but the first, one linear layer, unit length."""
    tokens = AutoTokenizer.from_pretrained(path)(text, truncation=True, max_length=length, return_tensors="pt")
    head = torch.load(path / "colbert_linear.pt", weights_only=True)
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(path).eval()(**tokens).last_hidden_state[0, 1:]
        vectors = torch.nn.functional.linear(hidden, head["weight"], head["bias"])
        unit: NDArray[np.float32] = torch.nn.functional.normalize(vectors, dim=-1).numpy()
    return unit


@pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning")
def test_token_vectors_are_those_of_flag_embedding(path: Path) -> None:
    model = model_of(path)
    assert model.dim == 80
    for encode in (model.encode_documents, model.encode_queries):
        for text, vectors in zip(TEXTS, encode(TEXTS), strict=True):
            np.testing.assert_allclose(vectors, vectors_of(path, text), atol=1e-5)


def test_the_mean_is_the_score_of_flag_embedding(path: Path) -> None:
    """`M3Embedder.colbert_score` is the mean over the query's vectors, as ``scale="mean"``."""
    query, scorer = QUERIES[1], ColBERTScorer(model_of(path), scale="mean")
    rows = vectors_of(path, query)
    for hit in rerank(query, TEXTS[:4], scorer):
        expected = (rows @ vectors_of(path, hit.text).T).max(axis=1).mean()
        assert hit.score == pytest.approx(float(expected), abs=1e-5)


def test_lengths_are_the_encoders(path: Path) -> None:
    with pytest.warns(TruncationWarning, match="1 of 1 documents were cut to 256 tokens"):
        model_of(path).encode_documents([LONG_TEXT * 3])
    with pytest.warns(TruncationWarning, match="cut to 20 tokens"):
        (vectors,) = model_of(path, document_length=20).encode_documents([LONG_TEXT])
    np.testing.assert_allclose(vectors, vectors_of(path, LONG_TEXT, 20), atol=1e-5)


def test_an_index_of_it_is_searched_and_explained(path: Path, tmp_path: Path) -> None:
    model = model_of(path)
    with ColBERTIndex.create(tmp_path / "index", model) as index:
        index.upsert([Passage(str(number), text) for number, text in enumerate(ENGLISH)])
        hits = index.search(QUERIES[0], k=5)
    assert [hit.score for hit in hits] == pytest.approx(model.score(QUERIES[0], [hit.text for hit in hits]), abs=0.01)
    explained = model.explain(QUERIES[0], ENGLISH[3])
    # Every token of the query but the first marker has a vector; the last marker is no word and is left out.
    assert sum(match.score for match in explained) < explained.score + 1
    assert all(ENGLISH[3][match.start : match.end].strip() for match in explained if match.end)


def test_the_head_is_part_of_the_fingerprint(path: Path, tmp_path: Path) -> None:
    other = shutil.copytree(path, tmp_path / "other")
    assert model_of(other).fingerprint == model_of(path).fingerprint
    head = torch.load(other / "colbert_linear.pt", weights_only=True)
    torch.save({"weight": head["weight"] * 2, "bias": head["bias"]}, other / "colbert_linear.pt")
    assert model_of(other).fingerprint != model_of(path).fingerprint


def test_the_same_model_saved_by_sentence_transformers_is_read_from_there(path: Path, tmp_path: Path) -> None:
    other = shutil.copytree(path, tmp_path / "other")
    config = {"model_type": "MultiVectorEncoder", "__version__": {"sentence_transformers": "6.0.0"}}
    (other / "config_sentence_transformers.json").write_text(json.dumps(config))
    modules = json.loads((other / "modules.json").read_text())[:1]
    (other / "modules.json").write_text(json.dumps(modules))
    assert model_of(other).dim == 48


class Command:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("as_zip", [True, False], ids=["torch", "pickle"])
def test_a_head_that_holds_code_is_refused_and_does_not_run(path: Path, tmp_path: Path, as_zip: bool) -> None:
    other, mark = shutil.copytree(path, tmp_path / "other"), tmp_path / "ran"
    content = {"weight": Command(mark), "bias": torch.zeros(80)}
    if as_zip:
        torch.save(content, other / "colbert_linear.pt")
    else:
        (other / "colbert_linear.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        model_of(other).encode_queries(["a"])
    assert not mark.exists()


@pytest.mark.parametrize(
    "head",
    [
        {"weight": torch.zeros(80, 47), "bias": torch.zeros(80)},
        {"weight": torch.zeros(80, 48)},
        {"weight": torch.zeros(80, 48), "bias": torch.zeros(79)},
        {"weight": torch.zeros(80, 48), "bias": torch.zeros(80), "more": torch.zeros(1)},
        torch.zeros(3),
    ],
    ids=["other width", "no bias", "short bias", "more tensors", "a tensor"],
)
def test_a_head_of_another_shape_is_refused(path: Path, tmp_path: Path, head: object) -> None:
    other = shutil.copytree(path, tmp_path / "other")
    torch.save(head, other / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear.pt of .* holds .*expected 'weight' of shape"):
        model_of(other).encode_queries(["a"])
