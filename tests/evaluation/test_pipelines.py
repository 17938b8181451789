"""Pipelines by name and from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_integrations import InvalidInputError
from rerank_integrations.evaluation import Pipeline, Rerank, Retrieve, presets, read_pipelines

DECLARED = """
- name: words first
  retrieve: {kind: bm25, depth: 30}
  rerank:
    - {kind: colbert, model: starter, candidates: 20, nbits: 4}
    - {kind: cross-encoder, model: some/reader, candidates: 5}
- name: exact
  retrieve: {kind: colbert, model: starter, nbits: null}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pipelines.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_declared_pipelines(tmp_path: Path) -> None:
    assert read_pipelines(write(tmp_path, DECLARED)) == [
        Pipeline(
            "words first",
            Retrieve("bm25", depth=30),
            (Rerank("colbert", "starter", 20, 4), Rerank("cross-encoder", "some/reader", 5)),
        ),
        Pipeline("exact", Retrieve("colbert", "starter", nbits=None)),
    ]


def test_presets_hold_every_generation() -> None:
    known = presets(cross_encoder="some/reader")
    assert {name: pipeline.name for name, pipeline in known.items()} == {name: name for name in known}
    assert {"bm25", "dense", "colbert-1bit", "colbert-2bit", "colbert-4bit", "colbert-exact"} < set(known)
    readers = {
        name for name, pipeline in known.items() if any(stage.model == "some/reader" for stage in pipeline.rerank)
    }
    assert readers == {"bm25+cross-encoder", "dense+cross-encoder", "cascade"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a YAML list"),
        ("name: alone", "not a YAML list"),
        ("- [", "cannot be read"),
        ("- just words", "pipeline 1: a pipeline is 'just words'"),
        ("- {name: a, retrieve: {kind: bm25}}\n- {name: a, retrieve: {kind: bm25}}", "distinct"),
        ("- {retrieve: {kind: bm25}}", "name is None"),
        ("- {name: a}", "retrieve is None"),
        ("- {name: a, retrieve: {}}", "kind"),
        ("- {name: a, retrieve: {kind: magic}}", "'magic'; expected one of bm25, dense, colbert"),
        ("- {name: a, retrieve: {kind: colbert, nbits: 3}}", "nbits is 3"),
        ("- {name: a, retrieve: {kind: bm25, depth: 0}}", "depth is 0"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: {kind: colbert}}", "expected a list"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: [{kind: colbert, candidates: x}]}", "candidates is 'x'"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: [{kind: bm25}]}", "expected one of colbert, cross-encoder"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: [{kind: colbert, nbits: 3}]}", "nbits is 3"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: [{kind: cross-encoder, nbits: 4}]}", "for colbert alone"),
        ("- {name: a, retrieve: {kind: colbert, nbits: 2.0}}", "nbits is 2.0"),
        ("- {name: a, retrieve: {kind: colbert, model: 5}}", "model is 5"),
        ("- {name: a, retrieve: {kind: bm25, model: starter}}", "for bm25, which has none"),
        ("- {name: a, retrieve: {kind: dense, nbits: 2}}", "nbits is for colbert"),
        ("- {name: a, retrieve: {kind: bm25}, rerank: [{kind: colbert, model: null}]}", "model is None"),
        ("- {name: a, retrieve: {kind: bm25, depth: 20}, rerank: [{kind: colbert}]}", "candidates is 50"),
        ("- {name: a, retreive: {kind: bm25}}", "unknown retreive"),
    ],
)
def test_what_is_no_list_of_pipelines(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_pipelines(write(tmp_path, text))
    assert expected in str(caught.value)
    assert "pipelines.yaml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.yaml cannot be read"):
        read_pipelines(tmp_path / "none.yaml")
