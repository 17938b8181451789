"""Graph backends give torch's scores in float32, and close ones in 8 bits, for every kind of checkpoint."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    FAMILIES,
    write_cross_encoder,
    write_multi_vector,
    write_pylate_colbert,
    write_stanford_colbert,
)
from checkpoints.colbert_families import write_modern_colbert
from checkpoints.rerankers import (
    write_deberta_reranker,
    write_long_xlmr_reranker,
    write_modernbert_reranker,
    write_qwen3_classifier,
    write_qwen3_reranker,
)
from close_to import close_to
from corpus import CHINESE, ENGLISH, LONG_TEXT, QUERIES

from rerank_integrations import CheckpointError, ColBERTModel, CrossEncoderModel, InvalidInputError

Model = ColBERTModel | CrossEncoderModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::rerank_integrations.TruncationWarning"),
    # A graph may stray where a kernel is wrong on the processor that runs the tests.
    pytest.mark.filterwarnings("ignore::rerank_integrations.FidelityWarning"),
    pytest.mark.usefixtures("graph_cache"),
]

BACKENDS = ["onnx", "openvino"]
TEXTS = [*ENGLISH[::8], *CHINESE[::3], LONG_TEXT, " ".join(ENGLISH[:9]), "a", "", "?!... --", "Naïve CAFÉ"]


def models_of(kind: type[Model], path: Path | str, backend: str, dtype: str, **arguments: Any) -> tuple[Model, Model]:
    """Return the model on a backend, and on torch in float32."""
    if kind is CrossEncoderModel:
        arguments["activation"] = "raw"
    return kind(path, backend=backend, dtype=dtype, **arguments), kind(path, dtype="float32", device="cpu", **arguments)


def require_equal_scores(kind: type[Model], path: Path | str, backend: str, **arguments: Any) -> None:
    graph, torch = models_of(kind, path, backend, "float32", **arguments)
    for query in (QUERIES[1], CHINESE[0]):
        expected = torch.score(query, TEXTS)
        assert np.std(expected) > 1e-3
        assert graph.score(query, TEXTS) == pytest.approx(expected, abs=1e-4)


def require_close_or_torch(
    kind: type[Model], path: Path | str, backend: str, dtype: str, *, correlation: float = 0.8
) -> None:
    """Assert that scores of fewer bits agree with torch's; where this processor's kernels do not, torch computes.

    A graph with an error of more than a third of the spread of torch's outputs is not served. On other texts than those
    that it is compared on, 26 of them, the correlation is then above 0.8: 0.95 less three standard errors. Kernels that
    are wrong come nowhere near.
    """
    graph, torch = models_of(kind, path, backend, dtype)
    found, expected = graph.score(QUERIES[1], TEXTS), torch.score(QUERIES[1], TEXTS)
    if graph.converted_path is None:
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert found != expected
        assert float(np.corrcoef(found, expected)[0, 1]) > correlation


def require_near_or_torch(path: Path | str, backend: str, dtype: str) -> None:
    """Assert that vectors of fewer bits point as torch's: a third of the spread leaves a cosine of 0.95 or more."""
    graph, torch = models_of(ColBERTModel, path, backend, dtype)
    pairs = zip(graph.encode_documents(TEXTS), torch.encode_documents(TEXTS), strict=True)
    assert float(np.mean(np.concatenate([(ours * theirs).sum(axis=1) for ours, theirs in pairs]))) > 0.9


@pytest.fixture(params=[ColBERTModel, CrossEncoderModel], ids=["colbert", "cross-encoder"])
def case(request: pytest.FixtureRequest) -> tuple[type[Model], Path]:
    fixture = "colbert_dir" if request.param is ColBERTModel else "cross_encoder_dir"
    return request.param, request.getfixturevalue(fixture)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_float32_scores_are_those_of_torch(case: tuple[type[Model], Path], backend: str) -> None:
    require_equal_scores(*case, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_vectors_are_those_of_torch(colbert_dir: Path, colbert: ColBERTModel, backend: str) -> None:
    graph = ColBERTModel(colbert_dir, backend=backend, dtype="float32")
    ours = [*graph.encode_documents(TEXTS), *graph.encode_queries(QUERIES)]
    theirs = [*colbert.encode_documents(TEXTS), *colbert.encode_queries(QUERIES)]
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert graph.dim == colbert.dim
    assert graph.fingerprint == colbert.fingerprint
    assert [match.text_token for match in graph.explain(QUERIES[0], ENGLISH[0])] == [
        match.text_token for match in colbert.explain(QUERIES[0], ENGLISH[0])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_are_cut_as_on_torch(colbert_dir: Path, cross_encoder_dir: Path, backend: str) -> None:
    require_equal_scores(ColBERTModel, colbert_dir, backend, document_length=12, query_length=6)
    require_equal_scores(CrossEncoderModel, cross_encoder_dir, backend, max_length=24)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_score_does_not_depend_on_the_padding_of_its_batch(case: tuple[type[Model], Path], backend: str) -> None:
    kind, path = case
    graph, _ = models_of(kind, path, backend, "float32")
    alone = [graph.score(QUERIES[0], [text])[0] for text in TEXTS]
    assert graph.score(QUERIES[0], TEXTS) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(
    ("backend", "dtype", "sizes"),
    [
        ("onnx", "int8", {}),
        ("openvino", "int8", {}),
        ("openvino", "auto", {}),
        # OpenVINO rounds activations in groups of 64: the tiny checkpoints are narrower, real ones are not.
        pytest.param("openvino", "int8", {"hidden_size": 64, "intermediate_size": 128}, marks=pytest.mark.slow),
    ],
)
def test_fewer_bits_stay_close_or_torch_computes(
    tmp_path: Path, colbert_dir: Path, cross_encoder_dir: Path, backend: str, dtype: str, sizes: dict[str, int]
) -> None:
    if sizes:
        colbert_dir = write_multi_vector(tmp_path / "colbert", sizes=sizes)
        cross_encoder_dir = write_cross_encoder(tmp_path / "cross-encoder", sizes=sizes)
    require_near_or_torch(colbert_dir, backend, dtype)
    require_close_or_torch(CrossEncoderModel, cross_encoder_dir, backend, dtype)


def test_auto_is_float32_where_there_is_no_bfloat16(cross_encoder_dir: Path) -> None:
    auto, exact = (CrossEncoderModel(cross_encoder_dir, backend="onnx", dtype=dtype) for dtype in ("auto", "float32"))
    assert close_to(auto.score(QUERIES[0], TEXTS), exact.score(QUERIES[0], TEXTS))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_get_the_serial_scores(case: tuple[type[Model], Path], backend: str) -> None:
    kind, path = case
    graph, _ = models_of(kind, path, backend, "float32")
    jobs = [(query, TEXTS[start::3]) for query in QUERIES[:4] for start in range(3)] * 2
    serial = [graph.score(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: graph.score(*job), jobs))
    for found, expected in zip(together, serial, strict=True):
        assert close_to(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pickled_model_keeps_backend_and_dtype(case: tuple[type[Model], Path], backend: str) -> None:
    kind, path = case
    model = kind(path, backend=backend, dtype="int8")
    copy = pickle.loads(pickle.dumps(model))
    assert copy.options() == model.options() == {"name_or_path": str(path), "backend": backend, "dtype": "int8"}
    assert copy.score(QUERIES[0], TEXTS) == model.score(QUERIES[0], TEXTS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_specifications_share_a_copy_and_others_do_not(
    cross_encoder_dir: Path, tmp_path: Path, backend: str
) -> None:
    path = Path(shutil.copytree(cross_encoder_dir, tmp_path / "model"))
    first = CrossEncoderModel(path, backend=backend, dtype="int8")
    expected = first.score(QUERIES[0], TEXTS)
    shutil.rmtree(path)
    assert CrossEncoderModel(path, backend=backend, dtype="int8", device="cpu").score(QUERIES[0], TEXTS) == expected
    for other in ({"backend": backend, "dtype": "float32"}, {"backend": "torch"}):
        with pytest.raises(CheckpointError):
            CrossEncoderModel(path, **other).score(QUERIES[0], TEXTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "tensorrt"}, "backend is 'tensorrt'; expected one of torch, onnx, openvino"),
        ({"backend": "torch", "dtype": "int8"}, "dtype is 'int8'; expected one of auto, float32, bfloat16, float16"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "dtype is 'bfloat16'; expected one of auto, float32, int8 with"),
        ({"backend": "openvino", "dtype": "float16"}, "expected one of auto, float32, bfloat16, int8 with"),
        ({"backend": "openvino", "device": "cuda"}, "device is 'cuda'; expected 'cpu' with backend='openvino'"),
    ],
)
@pytest.mark.parametrize("kind", [ColBERTModel, CrossEncoderModel])
def test_what_a_backend_has_not_is_refused_at_once(kind: type[Model], arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        kind("starter", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decoder_that_answers_by_tokens_is_refused(tmp_path: Path, backend: str) -> None:
    path = write_qwen3_reranker(tmp_path)
    assert len(CrossEncoderModel(path).score(QUERIES[0], TEXTS)) == len(TEXTS)
    with pytest.raises(CheckpointError, match=rf"causal_logits; with backend='{backend}' expected an encoder of text"):
        CrossEncoderModel(path, backend=backend).score(QUERIES[0], TEXTS)


_MORE: dict[str, tuple[type[Model], Callable[[Path], Path]]] = {
    "stanford": (ColBERTModel, write_stanford_colbert),
    "pylate": (ColBERTModel, write_pylate_colbert),
    "modern-colbert": (ColBERTModel, write_modern_colbert),
    "modernbert": (CrossEncoderModel, write_modernbert_reranker),
    "deberta": (CrossEncoderModel, write_deberta_reranker),
    "long-xlmr": (CrossEncoderModel, write_long_xlmr_reranker),
    "qwen3-classifier": (CrossEncoderModel, write_qwen3_classifier),
    **{
        family: (CrossEncoderModel, lambda path, family=family: write_cross_encoder(path, family))
        for family in FAMILIES
        if family != "bert"
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _MORE)
def test_every_family_gives_the_scores_of_torch(name: str, tmp_path: Path) -> None:
    kind, write = _MORE[name]
    path = write(tmp_path)
    for backend in BACKENDS:
        require_equal_scores(kind, path, backend)
    require_close_or_torch(kind, path, "openvino", "int8")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backend"), [(ColBERTModel, "onnx"), (CrossEncoderModel, "openvino")])
def test_the_starter_gives_the_scores_of_torch(kind: type[Model], backend: str) -> None:
    require_equal_scores(kind, "starter", backend)
    # Trained weights of a real width lose less than the tiny ones: 0.989 and more.
    require_close_or_torch(kind, "starter", backend, "int8", correlation=0.95)
