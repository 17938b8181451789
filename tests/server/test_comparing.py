"""`/v1/compare`: each generation answers as the library does, and says so where the service lacks it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from service import PASSAGES, LetterEncoder, WordScorer, eventually, toy_index
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError, Passage, rerank
from rerank_integrations.server import ServerSettings, create_app

QUERY = "light from solar panels"
NAMES = ["bi-encoder", "cross-encoder", "colbert"]


@pytest.fixture
def compared(index: ColBERTIndex) -> Iterator[TestClient]:
    settings = ServerSettings(writable=True, warm_up=False, max_k=20, max_texts=30)
    app = create_app({"toy": index}, {"words": WordScorer()}, settings, bi_encoder=LetterEncoder())
    with TestClient(app) as client:
        yield client


def compare(client: TestClient, **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/compare", json={"query": QUERY, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert [generation["generation"] for generation in answer["generations"]] == NAMES
    return answer


def ranking(answer: dict[str, Any], name: str) -> list[tuple[str, float]]:
    return [(hit["id"], hit["score"]) for hit in generation(answer, name)["hits"]]


def generation(answer: dict[str, Any], name: str) -> dict[str, Any]:
    result: dict[str, Any] = answer["generations"][NAMES.index(name)]
    return result


def by_cosine(query: str, passages: list[Passage]) -> list[tuple[str, float]]:
    encoder = LetterEncoder()
    asked = encoder.encode_query(query)[0]
    scores = {passage.id: float(encoder.encode_query(passage.text)[0] @ asked) for passage in passages}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def test_each_generation_answers_as_the_library(compared: TestClient, index: ColBERTIndex) -> None:
    answer = compare(compared, k=3, candidates=3)
    dense = by_cosine(QUERY, PASSAGES)[:3]
    assert [key for key, _ in ranking(answer, "bi-encoder")] == [key for key, _ in dense]
    scores = [score for _, score in ranking(answer, "bi-encoder")]
    assert np.allclose(scores, [score for _, score in dense], atol=1e-6)
    candidates = index.get([key for key, _ in dense])
    reranked = rerank(QUERY, candidates, WordScorer())
    assert ranking(answer, "cross-encoder") == [(hit.id, hit.score) for hit in reranked]
    assert ranking(answer, "colbert") == [(hit.id, hit.score) for hit in index.search(QUERY, 3)]
    assert generation(answer, "cross-encoder")["candidates_from"] == "bi-encoder"
    texts = {passage.id: {"text": passage.text, "metadata": dict(passage.metadata)} for passage in PASSAGES}
    shown = {hit["id"] for generation in answer["generations"] for hit in generation["hits"]}
    assert answer["passages"] == {key: texts[key] for key in shown}
    names = [item["model"] for item in answer["generations"]]
    assert names == ["bi-encoder", "words", "toy"]


def test_ranks_are_known_as_deep_as_the_candidates(compared: TestClient, index: ColBERTIndex) -> None:
    answer = compare(compared, k=1, candidates=2)
    assert answer["depth"] == 2
    expected = {
        "bi-encoder": [key for key, _ in by_cosine(QUERY, PASSAGES)[:2]],
        "cross-encoder": [
            hit.id for hit in rerank(QUERY, index.get([key for key, _ in by_cosine(QUERY, PASSAGES)[:2]]), WordScorer())
        ],
        "colbert": [hit.id for hit in index.search(QUERY, 2)],
    }
    for item in answer["generations"]:
        (hit,) = item["hits"]
        assert hit["rank"] == 1
        assert hit["ranks"] == {
            name: ids.index(hit["id"]) + 1 if hit["id"] in ids else None for name, ids in expected.items()
        }


def test_stages_say_where_the_time_went(compared: TestClient) -> None:
    answer = compare(compared, candidates=2)
    stages = {item["generation"]: item["stages"] for item in answer["generations"]}
    assert [(stage["name"], stage["passages"]) for stage in stages["bi-encoder"]] == [("retrieve", 4)]
    assert [(stage["name"], stage["passages"]) for stage in stages["colbert"]] == [("retrieve", 4)]
    assert [(stage["name"], stage["passages"]) for stage in stages["cross-encoder"]] == [("retrieve", 4), ("rerank", 2)]
    assert stages["cross-encoder"][0] == stages["bi-encoder"][0]
    for item in answer["generations"]:
        assert item["ms"] == pytest.approx(sum(stage["ms"] for stage in item["stages"]))
        assert item["ms"] > 0
    assert compare(compared)["depth"] == 20


def test_a_filter_holds_for_every_generation(compared: TestClient) -> None:
    answer = compare(compared, where={"year": 2024})
    assert {frozenset(dict(ranking(answer, name))) for name in NAMES} == {frozenset({"solar", "light"})}
    assert compare(compared, where={"year": 1999})["passages"] == {}


def test_the_bi_encoder_follows_what_is_written(compared: TestClient) -> None:
    compare(compared)
    compared.put("/v1/passages", json={"passages": [{"id": "new", "text": QUERY}, {"id": "zip", "text": "quartz"}]})
    compared.delete("/v1/passages", params={"id": ["solar"]})
    answer = compare(compared)
    kept = [passage for passage in PASSAGES if passage.id in ("river", "light")]
    expected = by_cosine(QUERY, [*kept, Passage("new", QUERY), Passage("zip", "quartz")])
    assert [key for key, _ in ranking(answer, "bi-encoder")] == [key for key, _ in expected]
    assert ranking(answer, "bi-encoder")[0] == ("new", pytest.approx(1.0))


def test_the_bi_encoder_follows_another_process_that_writes(index: ColBERTIndex) -> None:
    reader = ColBERTIndex.open(index.path, ToyEncoder(), read_only=True)
    with TestClient(
        create_app({"toy": reader}, settings=ServerSettings(warm_up=False), bi_encoder=LetterEncoder())
    ) as client:
        compare(client)
        index.upsert([Passage("new", QUERY)], show_progress=False)
        assert ranking(compare(client), "bi-encoder")[0][0] == "new"


class GatedEncoder(LetterEncoder):
    """Bi-encoder that encodes passages once `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def encode(self, texts: list[str]) -> Any:
        self.gate.wait()
        return super().encode(texts)


def test_while_the_bi_encoder_encodes_the_others_answer(index: ColBERTIndex) -> None:
    encoder = GatedEncoder()
    app = create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(warm_up=False), bi_encoder=encoder)
    with TestClient(app) as client:
        try:
            answer = compare(client)
            dense = generation(answer, "bi-encoder")
            assert dense["hits"] == []
            assert "still encoding" in dense["reason"]
            assert dense["progress"] == {"state": "preparing", "encoded": 0, "passages": 4}
            assert generation(answer, "cross-encoder")["candidates_from"] == "colbert"
            assert ranking(answer, "colbert") == [(hit.id, hit.score) for hit in index.search(QUERY)]
            assert "bi-encoder" not in generation(answer, "colbert")["hits"][0]["ranks"]
        finally:
            encoder.gate.set()
        eventually(lambda: client.get("/v1/service").json()["indexes"][0]["progress"]["state"] == "ready")
        assert len(ranking(compare(client), "bi-encoder")) == 4


def test_what_the_service_lacks_is_explained(index: ColBERTIndex) -> None:
    with TestClient(create_app({"toy": index}, settings=ServerSettings(warm_up=False))) as client:
        answer = compare(client)
        assert "--bi-encoder" in generation(answer, "bi-encoder")["reason"]
        assert "--reranker" in generation(answer, "cross-encoder")["reason"]
        assert ranking(answer, "colbert") == [(hit.id, hit.score) for hit in index.search(QUERY)]


def test_an_index_may_be_too_large_for_the_bi_encoder(index: ColBERTIndex) -> None:
    settings = ServerSettings(warm_up=False, max_bi_encoder_passages=3)
    with TestClient(create_app({"toy": index}, settings=settings, bi_encoder=LetterEncoder())) as client:
        dense = generation(compare(client), "bi-encoder")
        assert (dense["hits"], dense["progress"]["state"]) == ([], "too_large")
        assert "too many" in dense["reason"]


def test_a_bi_encoder_that_fails_leaves_the_others(index: ColBERTIndex) -> None:
    class Broken(LetterEncoder):
        def encode(self, texts: list[str]) -> Any:
            raise RuntimeError("/models/secret is broken")

    app = create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(warm_up=False), bi_encoder=Broken())
    with TestClient(app) as client:
        answer = compare(client)
        assert generation(answer, "bi-encoder")["progress"]["state"] == "failed"
        assert "secret" not in str(answer)
        assert len(ranking(answer, "colbert")) == 4


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"query": " "}, 422, "query"),
        ({"k": 21}, 422, "20"),
        ({"k": 0}, 422, "k"),
        ({"candidates": 21}, 422, "20"),
        ({"candidates": 0}, 422, "candidates"),
        ({"index": "nobody"}, 404, "toy"),
        ({"reranker": "nobody"}, 404, "words"),
        ({"reranker": "toy"}, 404, "words"),
        ({"where": {"year": {"$near": 1}}}, 422, "$near"),
        ({"depth": 3}, 422, "depth"),
    ],
    ids=[
        "query without text",
        "large k",
        "k of 0",
        "many candidates",
        "no candidates",
        "unknown index",
        "unknown reranker",
        "encoder as reranker",
        "unknown operator",
        "unknown field",
    ],
)
def test_a_bad_comparison(compared: TestClient, fields: dict[str, Any], status: int, named: str) -> None:
    response = compared.post("/v1/compare", json={"query": QUERY, **fields})
    assert (response.status_code, named in response.json()["message"]) == (status, True), response.text


def test_with_several_indexes_and_rerankers_a_comparison_names_them(index: ColBERTIndex) -> None:
    class Backwards(WordScorer):
        def score(self, query: str, texts: list[str]) -> list[float]:
            return [-score for score in super().score(query, texts)]

    with toy_index() as other:
        other.delete(["solar"])
        rerankers = {"words": WordScorer(), "backwards": Backwards(), "encoder": ToyEncoder()}
        app = create_app(
            {"first": index, "second": other}, rerankers, ServerSettings(warm_up=False), bi_encoder=LetterEncoder()
        )
        with TestClient(app) as client:
            assert client.get("/v1/service").json()["rerankers"] == ["words", "backwards"]
            assert client.post("/v1/compare", json={"query": QUERY}).status_code == 422
            assert dict(ranking(compare(client, index="first"), "bi-encoder")).keys() == {item.id for item in PASSAGES}
            assert "solar" not in compare(client, index="second")["passages"]
            forwards = ranking(compare(client, index="first", reranker="words"), "cross-encoder")
            backwards = ranking(compare(client, index="first", reranker="backwards"), "cross-encoder")
            assert [score for _, score in backwards] == [-score for _, score in reversed(forwards)]


def test_a_model_in_a_folder_is_not_named(colbert: ColBERTModel) -> None:
    index = ColBERTIndex.create(None, colbert)
    with TestClient(create_app({"docs": index}, settings=ServerSettings(warm_up=False))) as client:
        assert client.get("/v1/service").json()["indexes"][0]["model"] == "docs"


def test_what_is_no_bi_encoder_is_refused(index: ColBERTIndex) -> None:
    with pytest.raises(InvalidInputError, match="bi-encoder is of type WordScorer"):
        create_app({"toy": index}, settings=ServerSettings(warm_up=False), bi_encoder=WordScorer())  # type: ignore[arg-type]
