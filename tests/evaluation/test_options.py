"""`evaluate` with numbers of candidates and of callers, and the files that it leaves for the report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rerank_integrations import InvalidInputError
from rerank_integrations.cli.app import main
from rerank_integrations.evaluation import Pipeline, Retrieve, at_candidates, evaluate, presets, read_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "modules"
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text('{"_id": "a", "text": "zip archives"}\n{"_id": "b", "text": "csv tables"}\n')
    (path / "queries.jsonl").write_text('{"_id": "q1", "text": "archives"}\n{"_id": "q2", "text": "a table"}\n')
    (path / "qrels" / "test.tsv").write_text("q1\ta\t1\nq2\tb\t1\n")
    return path


def call(*arguments: object) -> object:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    return done.value.code


def test_each_number_of_candidates() -> None:
    known = presets(cross_encoder="some/reader")
    bm25, reranked, cascade = known["bm25"], known["bm25+colbert"], known["cascade"]
    found = {pipeline.name: pipeline for pipeline in at_candidates([bm25, reranked, cascade], [25, 200])}
    assert list(found) == ["bm25", "bm25+colbert@25", "bm25+colbert@200", "cascade@25", "cascade@200"]
    assert found["bm25"] == bm25
    assert found["bm25+colbert@25"].rerank == (replace(reranked.rerank[0], candidates=25),)
    # As many must be found as are reranked.
    assert found["bm25+colbert@25"].retrieve == bm25.retrieve
    assert found["bm25+colbert@200"].retrieve.depth == 200
    assert [stage.candidates for stage in found["cascade@25"].rerank] == [25, 10]


@pytest.mark.parametrize(
    ("counts", "expected"), [([], "empty"), ([0], "0"), ([-5], "-5"), ([10, 25, 10], "distinct"), ([True], "True")]
)
def test_numbers_that_are_none(folder: Path, tmp_path: Path, counts: list[int], expected: str) -> None:
    with pytest.raises(InvalidInputError, match=f"candidates.*{expected}"):
        at_candidates([presets()["bm25+colbert"]], counts)
    with pytest.raises(InvalidInputError, match=f"callers.*{expected}"):
        evaluate(folder, [presets()["bm25"]], tmp_path / "out", callers=counts)
    assert not (tmp_path / "out").exists()


def test_nothing_to_rerank() -> None:
    with pytest.raises(InvalidInputError, match="bm25, dense has a reranker"):
        at_candidates([presets()["bm25"], presets()["dense"]], [10])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--candidates", "10,x"], "--candidates is '10,x'; expected whole numbers above 0"),
        (["--candidates", ""], "--candidates is ''"),
        (["--candidates", "0"], "candidates is 0"),
        (["--candidates", "10", "--pipelines", "bm25"], "bm25 has a reranker"),
        (["--candidates", "10", "--pipelines", "mine.yaml"], "--candidates is for presets; mine.yaml"),
        (["--callers", "1,,8"], "--callers is '1,,8'"),
        (["--callers", "0"], "callers is 0"),
        (["--callers", "8,8"], "distinct"),
    ],
)
def test_options_that_are_refused(
    folder: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", folder, "--out", tmp_path / "out", *arguments) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["summary", "collection"])
def test_names_that_are_reserved(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="other than"):
        evaluate(folder, [Pipeline(name, Retrieve("bm25"))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_evaluation_leaves_its_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", folder, "--pipelines", "bm25", "--callers", "1,3", "--out", out, "--json")
    assert call(*arguments) in (0, None)
    written = capsys.readouterr()
    document = json.loads(written.out)
    assert f"report: {out / 'report.html'}" in written.err
    assert json.loads((out / "summary.json").read_text()) == document
    (row,) = document["rows"]
    assert set(row["per_s"]) == {"1", "3"}
    assert row["origin"]["command"] == " ".join(["rerank-integrations", *map(str, arguments)])
    assert row["origin"]["cores"] > 0
    assert row["origin"]["packages"]["torch"]
    (result,) = read_results(out)
    assert (result.gpu_mb is None) == (result.origin["gpus"] == [])
    # Without the collection.
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    shutil.rmtree(folder)
    assert call("report", out) in (0, None)
    assert (out / "report.html").read_text() == page
