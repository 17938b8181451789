"""`RemoteReranker` against this package's own service: the library's scores, scales and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from guides import DOCS, read_blocks, run_blocks
from service import PASSAGES, WordScorer, running, toy_index
from toy import ToyEncoder

from rerank_integrations import ColBERTScorer, Passage, RemoteError, RemoteReranker, rerank
from rerank_integrations.server import ServerSettings, create_app

QUERY = "light from solar panels"
TOKEN = "a secret of the tests"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with toy_index() as index:
        app = create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(token=TOKEN, max_texts=3))
        with running(app) as at:
            yield at


@pytest.mark.parametrize("path", ["", "/v2/rerank"])
def test_scores_and_scales_are_those_of_the_library(address: str, path: str) -> None:
    for model, scorer, scale in (("words", WordScorer(), "own"), ("toy", ColBERTScorer(ToyEncoder()), "maxsim_sum")):
        with RemoteReranker(address + path, model, api_key=TOKEN, batch_size=3) as remote:
            hits = rerank(QUERY, PASSAGES, remote)
        local = rerank(QUERY, PASSAGES, scorer)
        assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in local]
        assert {hit.note["score_scale"] for hit in hits} == {scale}


def test_stored_passages_are_scored_by_their_stored_vectors(address: str) -> None:
    unknown = Passage("unknown", "light of the moon")
    changed = Passage("river", "another text than the stored one")
    passages = [PASSAGES[0], unknown, changed]
    with RemoteReranker(address, "toy", api_key=TOKEN, api="rerank-integrations") as remote:
        hits = rerank(QUERY, passages, remote)
        batched = rerank(QUERY, [*PASSAGES, unknown], RemoteReranker(**remote.options(), api_key=TOKEN, batch_size=2))
    with toy_index() as index:
        local = rerank(QUERY, passages, ColBERTScorer(ToyEncoder(), index))
        local_batched = rerank(QUERY, [*PASSAGES, unknown], ColBERTScorer(ToyEncoder(), index))
    assert [(hit.id, hit.score, hit.note["vectors_from"]) for hit in hits] == [
        (hit.id, hit.score, hit.note["vectors_from"]) for hit in local
    ]
    assert {hit.id: hit.note["vectors_from"] for hit in hits} == {
        "solar": "stored",
        "unknown": "encoded",
        "river": "encoded",
    }
    assert [(hit.id, hit.score) for hit in batched] == [(hit.id, hit.score) for hit in local_batched]


def test_errors_say_what_the_service_says(address: str) -> None:
    with pytest.raises(RemoteError, match=r"answered 401.*expected an api_key"):
        RemoteReranker(address, "words").score(QUERY, ["a"])
    with pytest.raises(RemoteError, match=r"answered 404.*nonsense.*check url, api and model"):
        RemoteReranker(address, "nonsense", api_key=TOKEN).score(QUERY, ["a"])
    with pytest.raises(RemoteError, match=r"answered 422.*batch_size"):
        RemoteReranker(address, "words", api_key=TOKEN).score(QUERY, ["a", "b", "c", "d"])


def test_the_how_to(tmp_path: Path) -> None:
    blocks = [block for block in read_blocks(DOCS / "how-to" / "remote_reranker.md") if block.language == "python"]
    with running(create_app({}, {"starter": WordScorer()}, ServerSettings())) as at:
        names = run_blocks(
            [replace(block, code=block.code.replace("http://127.0.0.1:8000", at)) for block in blocks], tmp_path
        )
        names["remote"].close()
    assert [hit.text for hit in names["best"]] == ["zipfile reads one"]
