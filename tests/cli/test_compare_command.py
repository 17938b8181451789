"""``rerank-integrations compare``."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli
from small_collection import QUERIES, write_collection

from rerank_integrations.evaluation import keep_result, load_dataset, measure_retriever

A = {"q1": ["zip"], "q2": ["os"], "q3": ["csv"], "q4": ["copy"]}
B = {"q1": ["zip"], "q2": ["os"], "q3": ["json", "csv"], "q4": ["os"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "modules")


@pytest.fixture
def results(folder: Path, tmp_path: Path) -> list[Path]:
    data = load_dataset(folder)
    files = []
    for name, run in (("before", A), ("after", B)):
        by_text = {text: run[query] for query, text in QUERIES.items()}
        files.append(tmp_path / "results" / f"{name}.json")
        keep_result(files[-1], measure_retriever(name, by_text.__getitem__, data, callers=(1,)))
    return files


def test_the_tables(cli: Cli, results: list[Path], colbert_dir: Path) -> None:
    done = cli("compare", *results, "--colbert", colbert_dir)
    assert done.code == 0, done.err
    assert "0 queries better, 2 worse, 2 the same; paired t-test: p = " in done.out
    first, second = done.out.index("1. copy files"), done.out.index("2. tables with commas")
    assert first < second
    assert "q4: nDCG@10 1.000 in A, 0.000 in B (-1.000)" in done.out
    assert "│ 1 │ – │ copy  relevant" in done.out[first:second]
    assert "│ – │ 1 │ os  not judged" in done.out[first:second]
    # The query's word as the passage writes it.
    assert "«files»" in done.out[first:second]
    plain = cli("compare", *results, "--colbert", "none", "--top", 1)
    assert "shutil copies folders and files." in plain.out
    assert "tables with commas" not in plain.out


def test_json(cli: Cli, results: list[Path], folder: Path) -> None:
    document = cli("compare", *results, folder, "--metric", "recall@10", "--json").json()
    assert document["files"] == {"a": str(results[0]), "b": str(results[1])}
    assert (document["mean_a"], document["mean_b"]) == (0.875, 0.625)
    (change,) = document["changes"]
    assert change["relevant"] == [{"id": "copy", "grade": 1, "rank_a": 1, "rank_b": None}]


def test_relevant_passages_beyond_the_table(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(f'{{"_id": "p{n:02}", "text": "one of many"}}\n' for n in range(20)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "many"}\n')
    (folder / "qrels" / "test.tsv").write_text("".join(f"q\tp{n:02}\t1\n" for n in range(20)))
    data, files = load_dataset(folder), [tmp_path / "few.json", tmp_path / "more.json"]
    for file, ids in zip(files, (["p00"], ["p00", "p01", "p02", "p03"]), strict=True):
        keep_result(file, measure_retriever(file.stem, lambda text, ids=ids: ids, data))
    out = cli("compare", *files).out
    assert "Also relevant: p03 (– in A, 4 in B), p04 (– in A, – in B)" in out
    assert "and 9 more" in out


def test_other_files_are_not_results(cli: Cli, results: list[Path], folder: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "none.json", folder / "corpus.jsonl", folder):
        done = cli("compare", results[0], file)
        assert done.code == 1
        assert f"error: {file} is not the result of an evaluation" in done.err
    done = cli("compare", *results, "--metric", "magic")
    assert done.code == 1
    assert "expected one of recall@10" in done.err
