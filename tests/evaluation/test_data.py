"""Test collections from folders: valid ones are read, damaged ones are rejected with file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from rerank_integrations import InvalidInputError
from rerank_integrations.evaluation import load_dataset

CORPUS = [
    {"_id": "a", "title": "Foxes", "text": "run over snow", "year": 2020},
    {"_id": "b", "text": "whales sing"},
    {"_id": "c", "title": "", "text": "猫在睡觉"},
]
QUERIES = [{"_id": "q1", "text": "who runs"}, {"_id": "q2", "text": "who sings"}, {"_id": "q3", "text": "who knows"}]
QRELS = "query-id\tcorpus-id\tscore\nq2\tb\t2\nq1\ta\t1\nq1\tb\t0\n"


def lines(records: Iterable[object]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(folder: Path, corpus: str = "", queries: str = "", qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(corpus or lines(CORPUS), encoding="utf-8")
    (folder / "queries.jsonl").write_text(queries or lines(QUERIES), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_dataset(folder)
    for part in parts:
        assert part in str(caught.value)


def test_a_folder(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "tiny"))
    assert data.name == "tiny"
    assert [(passage.id, passage.text) for passage in data.passages] == [
        ("a", "Foxes run over snow"),
        ("b", "whales sing"),
        ("c", "猫在睡觉"),
    ]
    assert data.passages[0].metadata == {"title": "Foxes", "year": 2020}
    # In the order of the file; without q3, which nothing answers.
    assert list(data.queries.items()) == [("q1", "who runs"), ("q2", "who sings")]
    assert data.qrels == {"q1": {"a": 1, "b": 0}, "q2": {"b": 2}}


def test_gzipped_files_another_split_and_windows_lines(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", qrels=QRELS.split("\n", 1)[1].replace("\n", "\r\n"))
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "dev.tsv"):
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        file.unlink()
    assert load_dataset(folder, split="dev").qrels == {"q1": {"a": 1, "b": 0}, "q2": {"b": 2}}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "tiny")
    (folder / name).unlink()
    refused(folder, str(folder / name), "missing")


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", str(tmp_path / "none"), "not a folder")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(tmp_path: Path, name: str, content: str) -> None:
    folder = write(tmp_path / "tiny")
    (folder / name).write_text(content)
    refused(folder, str(folder / name), "empty")


def test_a_header_alone(tmp_path: Path) -> None:
    refused(write(tmp_path / "tiny", qrels="query-id\tcorpus-id\tscore\n"), "test.tsv", "empty")


@pytest.mark.parametrize(
    ("corpus", "expected"),
    [
        (lines([*CORPUS, CORPUS[0]]), ["corpus.jsonl, line 4", "'a'", "line 1"]),
        (lines(CORPUS) + "{", ["corpus.jsonl, line 4", "not JSON"]),
        (lines([{"_id": "a"}]), ["corpus.jsonl, line 1", "'text'"]),
        (lines([*CORPUS, {"text": "no id"}, {"_id": 7, "text": 7}]), ["corpus.jsonl, line 5", "7"]),
        (lines(CORPUS) + '{"_id": "d", "text": "half \\ud800"}', ["corpus.jsonl, line 4", "half a character", "ud800"]),
    ],
)
def test_a_damaged_corpus(tmp_path: Path, corpus: str, expected: list[str]) -> None:
    refused(write(tmp_path / "tiny", corpus=corpus), *expected)


def test_a_query_without_words(tmp_path: Path) -> None:
    refused(write(tmp_path / "tiny", queries=lines([*QUERIES, {"_id": "q4", "text": " "}])), "queries.jsonl, line 4")


def test_bytes_that_are_not_utf_8_are_told_with_their_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny")
    corpus = lines({"_id": f"p{number}", "text": "whole"} for number in range(60)).encode().splitlines(keepends=True)
    corpus[50] = corpus[50].replace(b"whole", b"\xff\xfe")
    (folder / "corpus.jsonl").write_bytes(b"".join(corpus))
    refused(folder, "corpus.jsonl, line 51", "UTF-8")


def test_no_flipped_byte_of_a_gzipped_file_is_a_traceback(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", corpus=lines(CORPUS))
    whole = gzip.compress((folder / "corpus.jsonl").read_bytes(), mtime=0)
    (folder / "corpus.jsonl").unlink()
    expected = load_with(folder, whole)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        # Some bytes say only when it was packed and by what.
        assert load_with(folder, bytes(damaged)) in (expected, "refused"), place


def load_with(folder: Path, corpus: bytes) -> object:
    (folder / "corpus.jsonl.gz").write_bytes(corpus)
    try:
        return load_dataset(folder)
    except InvalidInputError as error:
        assert "corpus.jsonl.gz, line" in str(error)
        return "refused"


def test_a_query_twice(tmp_path: Path) -> None:
    refused(write(tmp_path / "tiny", queries=lines([*QUERIES, QUERIES[1]])), "queries.jsonl, line 4", "'q2'", "line 2")


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("q9\ta\t1", ["line 5", "'q9'", "queries.jsonl"]),
        ("q1\tz\t1", ["line 5", "'z'", "corpus.jsonl"]),
        ("q1\ta", ["line 5", "2 fields"]),
        ("q1 a 1", ["line 5", "1 fields"]),
        ("q1\ta\tyes", ["line 5", "'yes'"]),
        ("q1\ta\t1.5", ["line 5", "'1.5'"]),
        ("q1\ta\t0", ["line 5", "'a'", "1"]),
    ],
)
def test_damaged_judgements(tmp_path: Path, added: str, expected: list[str]) -> None:
    refused(write(tmp_path / "tiny", qrels=f"{QRELS}{added}\n"), "test.tsv", *expected)


def test_nothing_is_relevant(tmp_path: Path) -> None:
    refused(write(tmp_path / "tiny", qrels="q1\ta\t0\n"), "test.tsv", "relevant")


def test_drawn_queries_are_always_the_same_ones(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", queries=lines([{"_id": f"q{n}", "text": f"who {n}"} for n in range(50)]))
    (folder / "qrels" / "test.tsv").write_text("".join(f"q{n}\ta\t1\n" for n in range(50)))
    whole, some = load_dataset(folder), load_dataset(folder, queries=20)
    assert len(some.queries) == len(some.qrels) == 20
    assert some == load_dataset(folder, queries=20)
    assert some.queries.items() < whole.queries.items()
    assert some.passages == whole.passages
    assert some.facts() != whole.facts()
    assert load_dataset(folder, queries=50) == whole
    with pytest.raises(InvalidInputError, match="queries is 0"):
        load_dataset(folder, queries=0)
