"""The routes beside reranking: each answers what the library answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from service import PASSAGES, WordScorer, toy_index
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, Hit, Passage, rerank
from rerank_integrations.server import ServerSettings, create_app

QUERY = "light from solar panels"


def hits_of(body: dict[str, Any]) -> list[Hit]:
    return [Hit(**hit) for hit in body["hits"]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 2},
        {"k": 0},
        {"where": {"year": 2024}},
        {"ids": ["river", "zip", "nobody"]},
        {"exact": True, "n_candidates": 3, "n_probe": 2},
        {"search_type": "bm25"},
        {"search_type": "hybrid", "bm25_weight": 0.6, "where": {"year": 2024}},
    ],
)
def test_a_search_answers_as_the_index_does(client: TestClient, index: ColBERTIndex, options: dict[str, Any]) -> None:
    response = client.post("/v1/search", json={"query": QUERY, **options})
    assert response.status_code == 200, response.text
    assert hits_of(response.json()) == index.search(QUERY, **options)
    assert response.json()["index"] == "toy"


def test_searches_that_wait_together_answer_as_alone(index: ColBERTIndex) -> None:
    from rerank_integrations.server.service import Search, _search_jobs

    jobs = [
        Search(QUERY, 2),
        Search("river", 2),
        Search("zip", 3, {"year": {"$lt": 2024}}),
        Search("rain", 2, ids=["river"]),
        Search("river", 3, {"year": {"$lt": 2024}}),
        Search("river", 2, search_type="bm25"),
        Search("rain", 2, search_type="bm25"),
        Search("rain", 2, search_type="hybrid", bm25_weight=0.5),
    ]
    alone = [
        index.search(
            job.query, job.k, where=job.where, ids=job.ids, search_type=job.search_type, bm25_weight=job.bm25_weight
        )
        for job in jobs
    ]
    assert _search_jobs(index, jobs) == alone


def test_hits_are_reranked_on_request(client: TestClient, index: ColBERTIndex) -> None:
    response = client.post("/v1/search", json={"query": QUERY, "k": 3, "reranker": "words", "top_n": 2})
    expected = rerank(QUERY, index.search(QUERY, 3), WordScorer(), top_n=2)
    assert hits_of(response.json()) == expected
    refused = client.post("/v1/search", json={"query": QUERY, "top_n": 2})
    assert (refused.status_code, "top_n" in refused.json()["message"]) == (422, True)


def test_passages_are_stored_replaced_read_and_removed(client: TestClient, index: ColBERTIndex) -> None:
    passages = [{"id": "new", "text": "a new light", "metadata": {"n": [1, {"a": None}]}}, {"text": "no id"}]
    stored = client.put("/v1/passages", json={"passages": passages})
    assert stored.status_code == 200
    new, made = stored.json()["ids"]
    assert index.get([new, made]) == [Passage("new", "a new light", {"n": [1, {"a": None}]}), Passage(made, "no id")]
    client.put("/v1/passages", json={"passages": [{"id": "new", "text": "another text"}]})
    read = client.get("/v1/passages", params={"id": ["new", "nobody", "zip"]}).json()["passages"]
    assert [(item["id"], item["text"]) for item in read] == [
        ("new", "another text"),
        ("zip", "a zip file is read without extracting it"),
    ]
    by_filter = client.get("/v1/passages", params={"where": '{"year": 2024}', "limit": 1, "offset": 1})
    assert [item["id"] for item in by_filter.json()["passages"]] == ["light"]
    assert client.delete("/v1/passages", params={"id": ["new", "nobody"]}).json()["deleted"] == 1
    assert client.delete("/v1/passages", params={"where": '{"year": 2024}'}).json()["deleted"] == 2
    assert sorted(index.ids()) == sorted([made, "river", "zip"])


def test_a_bad_passage_stores_none(client: TestClient, index: ColBERTIndex) -> None:
    passages = [{"id": f"p{number}", "text": "a text"} for number in range(300)]
    passages.append({"id": "bad", "text": "a text", "metadata": {"nul": "\0"}})  # type: ignore[dict-item]
    response = client.put("/v1/passages", json={"passages": passages})
    assert (response.status_code, "NUL" in response.json()["message"]) == (422, True)
    assert len(index) == len(PASSAGES)


@pytest.mark.parametrize("writable_index", [True, False])
def test_a_service_is_read_only_by_default(index: ColBERTIndex, writable_index: bool) -> None:
    opened = index if writable_index else ColBERTIndex.open(index.path, ToyEncoder(), read_only=True)
    settings = ServerSettings(warm_up=False) if writable_index else ServerSettings(writable=True, warm_up=False)
    with TestClient(create_app({"toy": opened}, settings=settings)) as client:
        responses = [
            client.put("/v1/passages", json={"passages": [{"text": "a"}]}),
            client.delete("/v1/passages", params={"where": "{}"}),
        ]
        assert [(response.status_code, response.json()["code"]) for response in responses] == [(403, "read_only")] * 2
        assert client.get("/v1/indexes").json()["indexes"] == [{"name": "toy", "passages": len(PASSAGES)}]


def test_embeddings_are_those_of_the_model(client: TestClient) -> None:
    texts = ["solar light", "", "the river"]
    for kind in ("query", "document"):
        request = {"input": texts, "input_type": kind}
        encoded = ToyEncoder().encode_queries(texts) if kind == "query" else ToyEncoder().encode_documents(texts)
        floats = client.post("/v1/embeddings", json=request).json()
        packed = client.post("/v1/multi-vector", json={**request, "embedding_type": "base64"}).json()
        assert floats["model"] == "toy"
        for number, vectors in enumerate(encoded):
            item, compact = floats["data"][number], packed["data"][number]
            assert item["index"] == number
            assert tuple(item["shape"]) == tuple(compact["shape"]) == vectors.shape
            assert np.array_equal(np.array(item["embeddings"], np.float32).reshape(vectors.shape), vectors)
            raw = np.frombuffer(base64.b64decode(compact["embeddings"]), "<f4")
            assert np.array_equal(raw.reshape(vectors.shape), vectors)
    single = client.post("/v1/embeddings", json={"input": "solar light"}).json()
    assert len(single["data"]) == 1


@pytest.fixture(scope="module")
def colbert_client(colbert: ColBERTModel, cross_encoder: CrossEncoderModel) -> Iterator[TestClient]:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert(PASSAGES, show_progress=False)
        app = create_app(
            {"colbert": index}, {"cross-encoder": cross_encoder, "toy": ToyEncoder()}, ServerSettings(warm_up=False)
        )
        with TestClient(app) as client:
            yield client


def test_models_score_as_in_the_library(
    colbert_client: TestClient, colbert: ColBERTModel, cross_encoder: CrossEncoderModel
) -> None:
    texts = [passage.text for passage in PASSAGES]
    for name, model in (("colbert", colbert), ("cross-encoder", cross_encoder)):
        response = colbert_client.post("/v1/rerank", json={"model": name, "query": QUERY, "documents": texts})
        scores = {item["index"]: item["relevance_score"] for item in response.json()["results"]}
        assert np.allclose([scores[place] for place in range(len(texts))], model.score(QUERY, texts), atol=1e-5)


def test_an_explanation_is_that_of_the_library_without_the_models_path(
    colbert_client: TestClient, colbert: ColBERTModel
) -> None:
    passage = PASSAGES[0]
    expected = {**colbert.explain(QUERY, passage.text).to_dict(), "model": "colbert"}
    by_text = colbert_client.post("/v1/explain", json={"query": QUERY, "text": passage.text, "model": "colbert"})
    by_id = colbert_client.post("/v1/explain", json={"query": QUERY, "id": passage.id})
    assert by_text.json() == expected
    assert by_id.json() == expected
    unknown = colbert_client.post("/v1/explain", json={"query": QUERY, "id": "nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_passage")
    both = colbert_client.post("/v1/explain", json={"query": QUERY, "id": "solar", "text": "a"})
    assert both.status_code == 422
    no_explanation = colbert_client.post("/v1/explain", json={"query": QUERY, "text": "a", "model": "toy"})
    assert (no_explanation.status_code, "explain" in no_explanation.json()["message"]) == (422, True)


def test_models_and_indexes_are_listed(client: TestClient) -> None:
    models = [(item["id"], item["encodes"]) for item in client.get("/v1/models").json()["data"]]
    assert models == [("words", False), ("toy", True)]
    assert client.get("/v1/indexes").json() == {"indexes": [{"name": "toy", "passages": 4}], "writable": True}


def test_with_several_indexes_a_request_names_one(index: ColBERTIndex) -> None:
    with toy_index() as other:
        other.delete(["solar"])
        with TestClient(
            create_app({"first": index, "second": other}, settings=ServerSettings(warm_up=False))
        ) as client:
            unnamed = client.post("/v1/search", json={"query": QUERY})
            assert (unnamed.status_code, "'first', 'second'" in unnamed.json()["message"]) == (422, True)
            for name, opened in (("first", index), ("second", other)):
                response = client.post("/v1/search", json={"query": QUERY, "index": name})
                assert hits_of(response.json()) == opened.search(QUERY)
