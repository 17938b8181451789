"""`ColBERTModel` on a Stanford directory, compared with colbert-ai's own encoder, text by text."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_stanford_colbert
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES, SENTENCES
from safetensors import safe_open

from rerank_integrations import ColBERTModel

pytestmark = [
    pytest.mark.colbert_ai,
    pytest.mark.skipif(
        importlib.util.find_spec("colbert") is None,
        reason="colbert-ai is absent, so parity with it is NOT tested here: pip install '.[colbert-ai]'",
    ),
    pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning"),
    pytest.mark.filterwarnings("ignore:.*(GradScaler|autocast|CUDA is not available)"),
]

TEXTS = {
    "short": ["a", "Mars", "The old dog.", *QUERIES],
    "sentences": [*ENGLISH[::3]],
    "chinese": [*CHINESE],
    "truncated": [LONG_TEXT, LONG_TEXT[400:], "the " * 400, " ".join(ENGLISH[:6])],
    "around the query length": ["cat " * count for count in range(26, 34)],
    "around the document length": ["cat " * count for count in range(174, 184)],
    "punctuation": ["?!...", "Hello, World! (yes?) -- no; 'or' \"so\" #1 @home $5 50% a_b ~x^2", "，。！？", "-" * 50],
    "odd": ["", " \n\t ", "Naïve CAFÉ crème brûlée", "x" * 150, "[MASK] [SEP] word", "日本語 mixed 中国", "\u200bzero"],
}


@pytest.fixture(scope="module")
def colbert_ai() -> Iterator[Callable[[Path], Any]]:
    """Load a directory with colbert-ai's ``Checkpoint``, patched so that it runs under transformers 5."""
    import colbert.modeling.base_colbert as base
    from colbert.infra import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint
    from colbert.modeling.colbert import ColBERT

    original = base.class_factory

    def mended_class(name: str) -> type:
        cls = original(name)
        cls.all_tied_weights_keys = {}
        cls._keys_to_ignore_on_load_unexpected = set(cls._keys_to_ignore_on_load_unexpected)
        return cls

    def load(path: Path) -> Any:
        return Checkpoint(str(path), colbert_config=ColBERTConfig(), verbose=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "class_factory", mended_class)
        # It would compile C++ for scoring packed vectors, which encoding does not call.
        patch.setattr(ColBERT, "loaded_extensions", True, raising=False)
        yield load


@pytest.fixture(scope="module")
def pair(colbert_ai: Callable[[Path], Any], stanford_dir: Path) -> tuple[Any, ColBERTModel]:
    return colbert_ai(stanford_dir), ColBERTModel(stanford_dir, dtype="float32", device="cpu")


@pytest.mark.parametrize("kind", TEXTS)
def test_query_vectors_are_those_of_colbert_ai(pair: tuple[Any, ColBERTModel], kind: str) -> None:
    checkpoint, model = pair
    expected = checkpoint.queryFromText(TEXTS[kind]).numpy()
    np.testing.assert_allclose(np.stack(model.encode_queries(TEXTS[kind])), expected, atol=1e-4)


@pytest.mark.parametrize("kind", TEXTS)
def test_document_vectors_are_those_of_colbert_ai(pair: tuple[Any, ColBERTModel], kind: str) -> None:
    checkpoint, model = pair
    expected = checkpoint.docFromText(TEXTS[kind], keep_dims=False)
    for text, vectors, theirs in zip(TEXTS[kind], model.encode_documents(TEXTS[kind]), expected, strict=True):
        assert vectors.shape == tuple(theirs.shape), text
        np.testing.assert_allclose(vectors, theirs.numpy(), atol=1e-4, err_msg=text)


def test_scores_and_order_are_those_of_colbert_ai(pair: tuple[Any, ColBERTModel]) -> None:
    from colbert.modeling.colbert import colbert_score

    checkpoint, model = pair
    texts = list(SENTENCES)
    documents, mask = checkpoint.doc(*checkpoint.doc_tokenizer.tensorize(texts), keep_dims="return_mask")
    for query in QUERIES[:4]:
        expected = colbert_score(checkpoint.queryFromText([query]), documents, mask, checkpoint.colbert_config).tolist()
        scores = model.score(query, texts)
        assert scores == pytest.approx(expected, abs=1e-3)
        assert np.argsort(scores)[::-1][:5].tolist() == np.argsort(expected)[::-1][:5].tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"query_maxlen": 24, "doc_maxlen": 60},
        {"attend_to_mask_tokens": True},
        {"mask_punctuation": False},
    ],
    ids=str,
)
def test_settings_of_the_metadata_file_hold(
    colbert_ai: Callable[[Path], Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    path = write_stanford_colbert(tmp_path, **settings)
    checkpoint, model = colbert_ai(path), ColBERTModel(path, dtype="float32", device="cpu")
    if not settings.get("mask_punctuation", True):
        checkpoint.skiplist = {}  # colbert-ai forgets to set it then, and fails
    texts = TEXTS["punctuation"] + TEXTS["truncated"] + TEXTS["chinese"]
    queries = checkpoint.queryFromText(texts).numpy()
    np.testing.assert_allclose(np.stack(model.encode_queries(texts)), queries, atol=1e-4)
    for vectors, theirs in zip(
        model.encode_documents(texts), checkpoint.docFromText(texts, keep_dims=False), strict=True
    ):
        np.testing.assert_allclose(vectors, theirs.numpy(), atol=1e-4)


def test_the_tests_stanford_checkpoint_is_what_colbert_ai_saves(
    colbert_ai: Callable[[Path], Any], stanford_dir: Path, tmp_path: Path
) -> None:
    """A directory that colbert-ai itself saved loads too, with equal vectors."""
    saved = tmp_path / "saved"
    colbert_ai(stanford_dir).save(str(saved))
    names = [set(safe_open(path / "model.safetensors", "pt").keys()) for path in (saved, stanford_dir)]
    assert names[0] == names[1]
    configs = [json.loads((path / "config.json").read_text()) for path in (saved, stanford_dir)]
    assert configs[0]["architectures"] == configs[1]["architectures"] == ["HF_ColBERT"]
    metadata = [json.loads((path / "artifact.metadata").read_text()) for path in (saved, stanford_dir)]
    assert set(metadata[1]) <= set(metadata[0])
    ours = ColBERTModel(stanford_dir, dtype="float32", device="cpu").encode_documents(TEXTS["odd"])
    theirs = ColBERTModel(saved, dtype="float32", device="cpu").encode_documents(TEXTS["odd"])
    for vectors, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(vectors, expected)
