"""Passages that are encoded once for several pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rerank_integrations import ColBERTModel, Passage
from rerank_integrations.evaluation import Pipeline, Rerank, Retrieve, evaluate, load_dataset, measure
from rerank_integrations.evaluation.vectors import open_vectors, store_vectors

TEXTS = ["green tea", "", "bees live on nectar and pollen", "green tea"]


def test_what_is_stored_is_what_the_model_gives(colbert: ColBERTModel, tmp_path: Path) -> None:
    passages = [Passage(id=str(number), text=text) for number, text in enumerate(TEXTS)]
    store_vectors(tmp_path, "one", colbert.encode_documents, passages, np.float16)
    found = open_vectors(tmp_path)
    assert found.seconds > 0
    for ours, theirs in zip(found.vectors, colbert.encode_documents(TEXTS), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_another_model_encodes_anew(colbert: ColBERTModel, stanford_dir: Path, tmp_path: Path) -> None:
    passages = [Passage(id="a", text=TEXTS[0])]
    store_vectors(tmp_path, "one", colbert.encode_documents, passages, np.float16)
    other = ColBERTModel(stanford_dir, dtype="float32", device="cpu")
    store_vectors(tmp_path, "other", other.encode_documents, passages, np.float16)
    np.testing.assert_allclose(open_vectors(tmp_path).vectors[0], other.encode_documents(TEXTS[:1])[0], atol=1e-3)


@pytest.mark.slow
def test_pipelines_that_share_vectors_find_what_they_find_alone(tmp_path: Path, colbert_dir: Path) -> None:
    from small_collection import write_collection

    folder = write_collection(tmp_path / "data")
    model = str(colbert_dir)
    pipelines = [Pipeline(str(nbits), Retrieve("colbert", model, nbits=nbits)) for nbits in (2, None)]
    pipelines.append(Pipeline("stored", Retrieve("dense"), (Rerank("colbert", model, 10, nbits=4),)))
    results = evaluate(folder, pipelines, tmp_path / "out", callers=(1,))
    for pipeline, result in zip(pipelines, results, strict=True):
        assert result.run == measure(pipeline, load_dataset(folder), callers=(1,)).run
    assert not (tmp_path / "out" / ".vectors").exists()


def test_stored_vectors_order_as_vectors_made_anew(tmp_path: Path, colbert_dir: Path) -> None:
    from small_collection import write_collection

    data = load_dataset(write_collection(tmp_path / "data"))
    stored, anew = (
        measure(Pipeline("p", Retrieve("bm25"), (Rerank("colbert", str(colbert_dir), 5, nbits),)), data, (1,))
        for nbits in (4, None)
    )
    assert stored.run == anew.run
    assert (stored.index_bytes or 0) > (anew.index_bytes or 0)
