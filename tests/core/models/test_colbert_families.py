"""ColBERT checkpoints over every encoder: MaxSim of sentence-transformers' vectors, at any length, in any script."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_multi_vector
from checkpoints.colbert_families import (
    XMOD_LANGUAGES,
    write_edge_colbert,
    write_hidden_projection,
    write_jina_colbert,
    write_lfm2_colbert,
    write_mmbert_colbert,
    write_modern_colbert,
    write_pooled_colbert,
    write_small_colbert,
    write_xlmr_colbert,
    write_xmod_colbert,
)
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES
from sentence_transformers import MultiVectorEncoder
from transformers import AutoTokenizer

from rerank_integrations import (
    CheckpointError,
    ColBERTIndex,
    ColBERTModel,
    InvalidInputError,
    Passage,
    TruncationWarning,
)

TRADITIONAL = "國家圖書館於週一閉館，讀者可於線上預約書籍；憑證件（身分證或護照）入館。"
TEXTS = [ENGLISH[3], "", *CHINESE[1:4], TRADITIONAL, "中文没有空格，" * 60, LONG_TEXT, "a"]
ODD_TEXTS = [
    "🐈‍⬛👩🏽‍🚀🇨🇳",
    "e\u0301a\u0308o\u0302\u0323 Z\u0351\u036b\u0343\u036a\u0302\u036b",
    "مرحبا بالعالم، שלום עולם \u202eabc\u202c",
    "nul\x00inside\x00",
    "\x00",
    "x" * 900,
    "漢" * 900,
    "\ufeff\u200b\u200d\u00a0",
    "[MASK] [SEP] </s> <mask> [Q] [D] [QueryMarker] [unused0]",
    "?!，。",
]
WRITE: dict[str, Callable[[Path], Path]] = {
    "answerai-colbert-small": write_small_colbert,
    "Stanford over XLM-R": write_xlmr_colbert,
    "jina-colbert-v2": write_jina_colbert,
    "GTE-ModernColBERT": write_modern_colbert,
    "mxbai-edge-colbert": write_edge_colbert,
    "LFM2-ColBERT": write_lfm2_colbert,
    "mmBERT": write_mmbert_colbert,
    "colbert-xm": write_xmod_colbert,
    "pooled": write_pooled_colbert,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning"),
    pytest.mark.usefixtures("code_cache"),
]


@pytest.fixture(scope="module", params=WRITE)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, code_cache: None) -> Path:
    return WRITE[request.param](tmp_path_factory.mktemp("colbert"))


@pytest.fixture(scope="module")
def reference(path: Path) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(path), device="cpu", trust_remote_code=brings_code(path))


def brings_code(path: Path) -> bool:
    return (path / "modeling_xlm_roberta.py").exists()


def model_of(path: Path, **arguments: object) -> ColBERTModel:
    defaults = {"dtype": "float32", "device": "cpu", "trust_remote_code": brings_code(path)}
    return ColBERTModel(path, **defaults | arguments)  # type: ignore[arg-type]


def naive_scores(reference: MultiVectorEncoder, query: str, texts: list[str]) -> list[float]:
    rows = reference.encode_query([query], convert_to_numpy=True)[0].astype(np.float64)
    scores = []
    for vectors in reference.encode_document(texts, convert_to_numpy=True):
        similarities = np.einsum("qd,td->qt", rows, vectors.astype(np.float64))
        scores.append(sum(max(row) for row in similarities.tolist()))
    return scores


@pytest.mark.parametrize("query", [QUERIES[1], QUERIES[7], TRADITIONAL, ""], ids=["English", "中文", "繁體", "empty"])
def test_scores_are_maxsim_over_the_vectors_of_sentence_transformers(
    path: Path, reference: MultiVectorEncoder, query: str
) -> None:
    scores = model_of(path).score(query, TEXTS)
    assert scores == pytest.approx(naive_scores(reference, query, TEXTS), abs=1e-4)
    # The first tokens of a causal encoder see no text, so two texts may tie for an empty query.
    assert len({round(score, 4) for score in scores}) >= len(TEXTS) - (not query)


def test_token_vectors_are_those_of_sentence_transformers(path: Path, reference: MultiVectorEncoder) -> None:
    model = model_of(path)
    for ours, theirs in [
        (model.encode_queries(QUERIES), reference.encode_query(list(QUERIES), convert_to_numpy=True)),
        (model.encode_documents(TEXTS), reference.encode_document(TEXTS, convert_to_numpy=True)),
    ]:
        for vectors, expected in zip(ours, theirs, strict=True):
            assert vectors.shape[1] == model.dim
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.slow
def test_any_length_of_a_query_is_read(path: Path, reference: MultiVectorEncoder) -> None:
    """The default limit is the checkpoint's length, never more than the encoder's positions."""
    query = f"{LONG_TEXT} {TRADITIONAL * 30}"
    with pytest.warns(TruncationWarning, match="1 of 1 queries were cut"):
        scores = model_of(path).score(query, TEXTS)
    assert scores == pytest.approx(naive_scores(reference, query, TEXTS), abs=1e-4)
    positions = json.loads((path / "config.json").read_text())["max_position_embeddings"]
    long = model_of(path, query_length=5000, document_length=5000)
    (rows,), (document,) = long.encode_queries([query]), long.encode_documents([query])
    assert positions - 2 <= len(rows) <= positions
    # Punctuation has no vectors, and pooling leaves half of the others.
    assert positions // 4 < len(document) <= positions


@pytest.mark.slow
def test_odd_text_is_encoded(path: Path, reference: MultiVectorEncoder) -> None:
    model = model_of(path)
    for text in ODD_TEXTS:
        scores = model.score(text, ODD_TEXTS)
        assert np.isfinite(scores).all()
    assert model.score(QUERIES[0], ODD_TEXTS) == pytest.approx(naive_scores(reference, QUERIES[0], ODD_TEXTS), abs=1e-4)
    with pytest.raises(InvalidInputError, match="Unicode"):
        model.score("\ud83d", ["a"])


def test_matched_tokens_are_named_in_chinese_text(path: Path) -> None:
    text = "北京是中国的首都，图书馆星期一不开门。"
    matches = model_of(path).explain("中国的首都", text)
    spans = [(match.start, match.end) for match in matches if match.end]
    assert spans
    assert all(0 <= start < end <= len(text) for start, end in spans)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_jina_colbert, "trust_remote_code=True"),
        (write_hidden_projection, "modules.json.*HF_ColBERT.*remove"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(
    tmp_path: Path, write: Callable[[Path], Path], reason: str
) -> None:
    path = write(tmp_path)
    with pytest.raises(CheckpointError, match=f"(?s){reason}") as refusal:
        model_of(path, trust_remote_code=False).encode_queries(["中国的首都"])
    assert str(path) in str(refusal.value)


def test_a_hidden_projection_is_read_once_the_list_is_gone(tmp_path: Path) -> None:
    path = write_hidden_projection(tmp_path)
    (path / "modules.json").unlink()
    reference = MultiVectorEncoder(str(path), device="cpu")
    expected = naive_scores(reference, QUERIES[0], TEXTS)
    assert model_of(path).score(QUERIES[0], TEXTS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("write", [write_mmbert_colbert, write_lfm2_colbert])
def test_markers_are_one_token_each(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """PyLate inserts the marker's id as the second token; here it is the beginning of the text."""
    path = write(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = model_of(path)
    for text in (ENGLISH[3], CHINESE[1]):
        (count,) = model.token_counts([text])
        # A blank before the first word belongs to the marker, so the text may begin with another piece.
        assert count == len(tokenizer("[D] " + text)["input_ids"])
        assert tokenizer("[D] " + text)["input_ids"][1] == tokenizer.convert_tokens_to_ids("[D] ")


def test_the_language_of_an_adapter_is_chosen(tmp_path: Path) -> None:
    """ColBERT-XM reads passages and queries with the adapters of their languages, in one vector space."""
    path = write_xmod_colbert(tmp_path / "xmod")
    english, german, chinese = (
        model_of(path, model_kwargs={"default_language": language}).encode_documents([CHINESE[1]])[0]
        for language in XMOD_LANGUAGES
    )
    (default,) = model_of(path).encode_documents([CHINESE[1]])
    np.testing.assert_allclose(default, english, atol=1e-6)
    reference = MultiVectorEncoder(str(path), device="cpu", config_kwargs={"default_language": "zh_CN"})
    np.testing.assert_allclose(chinese, reference.encode_document(CHINESE[1], convert_to_numpy=True), atol=1e-5)
    assert np.abs(german - english).max() > 0.01
    with pytest.raises(CheckpointError, match=r"'fr_XX'.*en_XX, de_DE, zh_CN"):
        model_of(path, model_kwargs={"default_language": "fr_XX"}).encode_queries([QUERIES[0]])
    other = shutil.copytree(path, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"default_language": None}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"None.*default_language"):
        model_of(other).encode_queries([QUERIES[0]])


def test_vectors_that_a_checkpoint_pools_are_stored_and_explained(tmp_path: Path) -> None:
    model = model_of(write_pooled_colbert(tmp_path / "pooled"))
    plain = model_of(write_multi_vector(tmp_path / "plain", seed=40))
    pooled, whole = model.encode_documents(ENGLISH[:6]), plain.encode_documents(ENGLISH[:6])
    # The first token is protected, the others are merged in pairs on average.
    assert [len(rows) for rows in pooled] == [1 + (len(rows) - 1) // 2 for rows in whole]
    with ColBERTIndex.create(tmp_path / "index", model) as index:
        index.upsert([Passage(str(number), text) for number, text in enumerate(ENGLISH[:6])])
        assert index.stats().tokens == sum(map(len, pooled))
        best = index.search(QUERIES[0], k=6)
    expected = model.score(QUERIES[0], [hit.text for hit in best])
    assert [hit.score for hit in best] == pytest.approx(expected, abs=0.01)
    explained, unpooled = model.explain(QUERIES[0], ENGLISH[3]), plain.explain(QUERIES[0], ENGLISH[3])
    assert explained.score == pytest.approx(model.score(QUERIES[0], [ENGLISH[3]])[0], abs=1e-5)
    assert [(match.query_start, match.start, match.end) for match in explained] == [
        (match.query_start, match.start, match.end) for match in unpooled
    ]
