"""``rerank-integrations search``, ``info`` and ``verify``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cli
from reranking_services import RerankingService, reranking_service

from rerank_integrations import ColBERTIndex, CrossEncoderModel, RemoteReranker, rerank


def test_search_gives_what_the_library_gives(cli: Cli, index_path: Path) -> None:
    done = cli("search", index_path, "net profit", "-k", "2", "--json")
    assert done.code == 0, done.err
    with ColBERTIndex.open(index_path, read_only=True) as index:
        expected = [hit.to_dict() for hit in index.search("net profit", 2)]
    assert done.json() == {"index": str(index_path), "query": "net profit", "hits": expected}
    assert len(expected) == 2


@pytest.fixture
def service() -> Iterator[RerankingService]:
    with reranking_service() as running:
        yield running


def test_hits_are_reranked_by_a_service(cli: Cli, index_path: Path, service: RerankingService) -> None:
    with ColBERTIndex.open(index_path, read_only=True) as index:
        hits = index.search("net profit", 3)
    expected = [hit.to_dict() for hit in rerank("net profit", hits, RemoteReranker(service.address), top_n=2)]
    address = f"{service.address}/v1/rerank"
    as_object = json.dumps({"url": service.address, "model": "m", "headers": {"X-Mine": "a=b"}})
    for reranker, name in ((address, address), (as_object, "m")):
        done = cli("search", index_path, "net profit", "-k", "3", "--reranker", reranker, "--top-n", "2", "--json")
        assert done.code == 0, done.err
        assert done.json()["reranker"] == name
        assert done.json()["hits"] == expected
    assert service.requests[-1].headers["x-mine"] == "a=b"


def test_hits_are_reranked_by_a_model(cli: Cli, index_path: Path, cross_encoder_dir: Path) -> None:
    done = cli("search", index_path, "net profit", "--reranker", cross_encoder_dir, "--json")
    assert done.code == 0, done.err
    with ColBERTIndex.open(index_path, read_only=True) as index:
        hits = rerank("net profit", index.search("net profit"), CrossEncoderModel(str(cross_encoder_dir)))
    assert [(hit["id"], hit["score"]) for hit in done.json()["hits"]] == [(hit.id, hit.score) for hit in hits]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-n", "2"), "--top-n is 2 without --reranker"),
        (("--reranker", "{"), "is not JSON"),
        (("--reranker", '{"model": "m"}'), "expected url"),
        (("--reranker", '{"url": "http://127.0.0.1", "api_key": "k"}'), "api_key_env"),
        (("--reranker", '{"url": "http://127.0.0.1", "colour": "red"}'), "has no argument colour"),
        (("--reranker", "http://127.0.0.1:1/v1/rerank#part"), "contains a fragment"),
    ],
)
def test_a_bad_reranker_is_reported_in_one_line(
    cli: Cli, index_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = cli("search", index_path, "net profit", *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_where_filters(cli: Cli, index_path: Path) -> None:
    done = cli("search", index_path, "net profit", "--where", '{"year": {"$gte": 2023}}', "--json")
    assert sorted(hit["id"] for hit in done.json()["hits"]) == ["a", "b"]


def test_the_table_shows_rank_score_id_and_text(cli: Cli, index_path: Path) -> None:
    done = cli("search", index_path, "net profit")
    best = cli("search", index_path, "net profit", "--json").json()["hits"][0]
    assert done.code == 0
    (row,) = [line for line in done.out.splitlines() if best["text"] in line]
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "1",
        f"{best['score']:.3f}",
        best["id"],
        best["text"],
    ]


def test_an_empty_query_finds_nothing(cli: Cli, index_path: Path) -> None:
    assert cli("search", index_path, " ", "--json").json()["hits"] == []
    assert "No passage found." in cli("search", index_path, " ").out


@pytest.mark.parametrize(
    ("where", "message"),
    [("{", "--where"), ("[1]", "--where"), ('{"year": {"$near": 3}}', "$near")],
)
def test_a_bad_filter_is_reported_in_one_line(cli: Cli, index_path: Path, where: str, message: str) -> None:
    done = cli("search", index_path, "net profit", "--where", where)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_negative_k_is_wrong_usage(cli: Cli, index_path: Path) -> None:
    assert cli("search", index_path, "net profit", "-k", "-1").code == 2


@pytest.mark.parametrize("command", [("search", "query"), ("info",), ("verify",)])
def test_a_folder_that_is_not_an_index_is_reported_in_one_line(
    cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = cli(command[0], tmp_path, *command[1:])
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert str(tmp_path) in done.err


def test_info_gives_the_stats(cli: Cli, index_path: Path) -> None:
    with ColBERTIndex.open(index_path, read_only=True) as index:
        stats = index.stats().to_dict()
    assert cli("info", index_path, "--json").json() == {"index": str(index_path), **json.loads(json.dumps(stats))}
    shown = cli("info", index_path).out
    assert all(name in shown for name in stats)


def test_verify_passes_a_sound_index(cli: Cli, index_path: Path) -> None:
    assert cli("verify", index_path).code == 0
    report = cli("verify", index_path, "--json").json()
    assert report["sound"] is True
    assert report["passages"] == 3


def test_verify_fails_a_damaged_index(cli: Cli, index_path: Path) -> None:
    largest = max(index_path.rglob("*.npy"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    done = cli("verify", index_path)
    assert (done.code, done.out) == (1, "")
    assert "error: " in done.err
    as_json = cli("verify", index_path, "--json")
    assert as_json.code == 1
    assert as_json.json()["sound"] is False
    assert as_json.json()["problem"]


def test_a_model_in_a_folder_must_be_named_again(cli: Cli, tmp_path: Path, corpus: Path, colbert_dir: Path) -> None:
    assert cli("index", tmp_path / "made", corpus, "--model", colbert_dir).code == 0
    done = cli("search", tmp_path / "made", "net profit", "--json")
    assert (done.code, done.out) == (1, "")
    assert "or --model on the command line" in done.err
    done = cli("search", tmp_path / "made", "net profit", "--model", colbert_dir, "--json")
    assert len(done.json()["hits"]) == 3, done.err
