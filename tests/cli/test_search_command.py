"""``rerank-integrations search``, ``info`` and ``verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerank_integrations import ColBERTIndex

Cli = Callable[..., Any]


def test_search_gives_what_the_library_gives(cli: Cli, made: Path) -> None:
    done = cli("search", made, "net profit", "-k", "2", "--json")
    assert done.code == 0, done.err
    with ColBERTIndex.open(made, read_only=True) as index:
        expected = [hit.to_dict() for hit in index.search("net profit", 2)]
    assert done.json() == {"index": str(made), "query": "net profit", "hits": expected}
    assert len(expected) == 2


def test_where_filters(cli: Cli, made: Path) -> None:
    done = cli("search", made, "net profit", "--where", '{"year": {"$gte": 2023}}', "--json")
    assert sorted(hit["id"] for hit in done.json()["hits"]) == ["a", "b"]


def test_the_table_shows_rank_score_id_and_text(cli: Cli, made: Path) -> None:
    done = cli("search", made, "net profit")
    best = cli("search", made, "net profit", "--json").json()["hits"][0]
    assert done.code == 0
    (row,) = [line for line in done.out.splitlines() if best["text"] in line]
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "1",
        f"{best['score']:.3f}",
        best["id"],
        best["text"],
    ]


def test_an_empty_query_finds_nothing(cli: Cli, made: Path) -> None:
    assert cli("search", made, " ", "--json").json()["hits"] == []
    assert "No passage found." in cli("search", made, " ").out


@pytest.mark.parametrize(
    ("where", "said"),
    [("{", "--where"), ("[1]", "--where"), ('{"year": {"$near": 3}}', "$near")],
)
def test_a_bad_filter_is_one_line(cli: Cli, made: Path, where: str, said: str) -> None:
    done = cli("search", made, "net profit", "--where", where)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_negative_k_is_wrong_usage(cli: Cli, made: Path) -> None:
    assert cli("search", made, "net profit", "-k", "-1").code == 2


@pytest.mark.parametrize("command", [("search", "query"), ("info",), ("verify",)])
def test_what_is_not_an_index_is_one_line(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = cli(command[0], tmp_path, *command[1:])
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert str(tmp_path) in done.err


def test_info_gives_the_stats(cli: Cli, made: Path) -> None:
    with ColBERTIndex.open(made, read_only=True) as index:
        stats = index.stats().to_dict()
    assert cli("info", made, "--json").json() == {"index": str(made), **json.loads(json.dumps(stats))}
    shown = cli("info", made).out
    assert all(name in shown for name in stats)


def test_verify_passes_a_sound_index(cli: Cli, made: Path) -> None:
    assert cli("verify", made).code == 0
    report = cli("verify", made, "--json").json()
    assert report["sound"] is True
    assert report["passages"] == 3


def test_verify_fails_a_damaged_index(cli: Cli, made: Path) -> None:
    largest = max(made.rglob("*.npy"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    done = cli("verify", made)
    assert (done.code, done.out) == (1, "")
    assert "error: " in done.err
    as_json = cli("verify", made, "--json")
    assert as_json.code == 1
    assert as_json.json()["sound"] is False
    assert as_json.json()["problem"]


def test_a_model_in_a_folder_is_named_again(cli: Cli, tmp_path: Path, corpus: Path, colbert_dir: Path) -> None:
    assert cli("index", tmp_path / "made", corpus, "--model", colbert_dir).code == 0
    done = cli("search", tmp_path / "made", "net profit", "--json")
    assert (done.code, done.out) == (1, "")
    assert "or --model on the command line" in done.err
    done = cli("search", tmp_path / "made", "net profit", "--model", colbert_dir, "--json")
    assert len(done.json()["hits"]) == 3, done.err
