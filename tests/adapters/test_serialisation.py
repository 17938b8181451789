"""Components are serialised and pickled without weights, and are the same when loaded again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus import QUERIES
from ranked_rows import candidates_of

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Passage

# A tiny checkpoint alone has 100 times as much.
FEW_BYTES = 3000
WINDOWS = {"top_n": None, "window": 24, "stride": 8, "score_threshold": -100.0, "strict": True, "max_candidates": 6}
OPTIONS = {**WINDOWS, "scale": "mean", "cache_bytes": 0}


@pytest.fixture(
    params=[
        "colbert",
        "colbert with index",
        "colbert with options",
        "cross-encoder",
        "cross-encoder with options",
        "cascade",
        "retriever",
    ]
)
def component(
    request: pytest.FixtureRequest,
    harness: Any,
    index: ColBERTIndex,
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
) -> Any:
    # Used once, so that there are weights in memory that could be written.
    colbert.score("a query", ["a text"])
    cross_encoder.score("a query", ["a text"])
    made: dict[str, Callable[[], Any]] = {
        "colbert": lambda: harness.colbert_rerank(model=colbert, top_n=4),
        "colbert with index": lambda: harness.colbert_rerank(model=colbert, index=index, top_n=4),
        "colbert with options": lambda: harness.colbert_rerank(model=colbert, **OPTIONS, **harness.text_with_metadata),
        "cross-encoder": lambda: harness.cross_encoder_rerank(model=cross_encoder, top_n=4),
        "cross-encoder with options": lambda: harness.cross_encoder_rerank(model=cross_encoder, **WINDOWS),
        "cascade": lambda: harness.cascade_rerank(
            stages=[made["colbert with index"](), made["cross-encoder with options"]()], top_n=3, time_budget=60.0
        ),
        "retriever": lambda: harness.retriever(index, k=4),
    }
    return made[request.param]()


def answer(harness: Any, component: Any, passages: list[Passage]) -> Any:
    if hasattr(component, "invoke") or hasattr(component, "retrieve"):
        return harness.retrieve(component, QUERIES[0])
    return harness.noted(component, harness.candidates(candidates_of(passages)), QUERIES[0])


def test_json(harness: Any, component: Any, passages: list[Passage]) -> None:
    text = harness.dumps(component)
    assert len(text) < FEW_BYTES
    assert "not_implemented" not in text
    back = harness.loads(text, like=component)
    assert type(back) is type(component)
    assert harness.dumps(back) == text
    assert answer(harness, back, passages) == answer(harness, component, passages)


@pytest.mark.parametrize("duplicate", [lambda item: pickle.loads(pickle.dumps(item)), copy.deepcopy])
def test_pickle_and_deep_copy(harness: Any, component: Any, passages: list[Passage], duplicate: Any) -> None:
    back = duplicate(component)
    assert back is not component
    assert harness.dumps(back) == harness.dumps(component)
    assert answer(harness, back, passages) == answer(harness, component, passages)


def test_a_pickle_holds_no_weights(component: Any, colbert_dir: Path) -> None:
    weights = sum(file.stat().st_size for file in colbert_dir.rglob("*.safetensors"))
    assert len(pickle.dumps(component)) < FEW_BYTES < weights


def test_an_access_token_is_never_written(harness: Any, colbert_dir: Path, cross_encoder_dir: Path) -> None:
    secret = "hf_do_not_write_me"
    for component in (
        harness.colbert_rerank(model=ColBERTModel(colbert_dir, token=secret)),
        harness.cross_encoder_rerank(model=CrossEncoderModel(cross_encoder_dir, token=secret)),
    ):
        assert secret not in harness.dumps(component)
        assert secret.encode() not in pickle.dumps(component)


def test_arguments_of_the_model_survive(harness: Any, cross_encoder_dir: Path) -> None:
    model = CrossEncoderModel(cross_encoder_dir, dtype="float32", activation="raw", max_length=64)
    component = harness.cross_encoder_rerank(model=model)
    back = harness.loads(harness.dumps(component), like=component)
    assert back.model.options() == model.options()


def test_model_by_name_is_written_as_its_name(harness: Any, cross_encoder_dir: Path) -> None:
    component = harness.cross_encoder_rerank(model=str(cross_encoder_dir))
    assert harness.loads(harness.dumps(component), like=component).model.name == str(cross_encoder_dir)


def test_options_set_later_are_written(harness: Any, cross_encoder_dir: Path, colbert_dir: Path) -> None:
    cascade = harness.cascade_rerank(
        stages=[
            harness.colbert_rerank(model=str(colbert_dir)),
            harness.cross_encoder_rerank(model=str(cross_encoder_dir)),
        ]
    )
    cascade.top_n, cascade.time_budget = 1, 2.5
    cascade.stages[0].window, cascade.stages[0].scale = 64, "mean"
    for back in (
        harness.loads(harness.dumps(cascade), like=cascade),
        pickle.loads(pickle.dumps(cascade)),
        copy.deepcopy(cascade),
    ):
        assert (back.top_n, back.time_budget) == (1, 2.5)
        assert (back.stages[0].window, back.stages[0].scale) == (64, "mean")
        assert back.stages[0] is not cascade.stages[0]


def test_a_device_is_written_with_its_model(harness: Any, colbert_dir: Path) -> None:
    component = harness.colbert_rerank(model=str(colbert_dir), device="meta")
    assert harness.loads(harness.dumps(component), like=component).model.device == "meta"


def test_a_model_by_a_relative_path_comes_back_in_another_working_directory(
    harness: Any, colbert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colbert_dir.parent)
    model = ColBERTModel(colbert_dir.name)
    with ColBERTIndex.create(tmp_path / "index", model) as index:
        index.upsert(["a text", "another one"])
        retriever = harness.retriever(index, k=2)
        reranker = harness.colbert_rerank(model=model, index=index)
        expected = harness.retrieve(retriever, QUERIES[0])
        pickled, written = pickle.dumps(retriever), harness.dumps(reranker)
    monkeypatch.chdir(tmp_path)
    assert harness.retrieve(pickle.loads(pickled), QUERIES[0]) == expected
    assert harness.loads(written, like=reranker).model.name == str(colbert_dir.resolve())
