"""POST /v1/rerank and /v2/rerank: the clients of Cohere and Jina, and the library's own scores."""

from __future__ import annotations

from collections.abc import Iterator

import cohere
import pytest
from cohere import errors
from fastapi import FastAPI
from fastapi.testclient import TestClient
from service import PASSAGES, WordScorer, running, toy_index
from toy import ToyEncoder

from rerank_integrations import Cascade, ColBERTScorer, Reranker, rerank
from rerank_integrations.core.reranking import as_candidate_scorer
from rerank_integrations.server import ServerSettings, create_app

QUERY = "light from solar panels"
DOCUMENTS = [passage.text for passage in PASSAGES]
TOKEN = "a secret of the tests"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with toy_index() as index:
        app = create_app({"toy": index}, {"words": WordScorer()}, ServerSettings(token=TOKEN, warm_up=False))
        with running(app) as at:
            yield at


def expected(count: int | None = None) -> list[tuple[int, float]]:
    hits = rerank(QUERY, PASSAGES, WordScorer(), top_n=count)
    ids = [passage.id for passage in PASSAGES]
    return [(ids.index(hit.id), hit.score) for hit in hits]


def test_the_client_of_cohere_version_1(address: str) -> None:
    client = cohere.Client(api_key=TOKEN, base_url=address)
    response = client.rerank(query=QUERY, documents=DOCUMENTS, model="words", top_n=3, return_documents=True)
    assert [(item.index, item.relevance_score) for item in response.results] == expected(3)
    best = response.results[0]
    assert best.document is not None
    assert best.document.text == DOCUMENTS[best.index]
    assert response.meta is not None
    assert response.meta.api_version is not None
    assert response.meta.api_version.version == "1"


def test_the_client_of_cohere_version_2(address: str) -> None:
    client = cohere.ClientV2(api_key=TOKEN, base_url=address)
    response = client.rerank(query=QUERY, documents=DOCUMENTS, model="words")
    assert [(item.index, item.relevance_score) for item in response.results] == expected()
    assert response.id


async def test_the_asynchronous_client_of_cohere(address: str) -> None:
    client = cohere.AsyncClientV2(api_key=TOKEN, base_url=address)
    response = await client.rerank(query=QUERY, documents=DOCUMENTS, model="words", top_n=1)
    assert [(item.index, item.relevance_score) for item in response.results] == expected(1)


def test_errors_reach_the_client_of_cohere(address: str) -> None:
    with pytest.raises(errors.UnauthorizedError):
        cohere.ClientV2(api_key="a wrong token", base_url=address).rerank(query="q", documents=["a"], model="words")
    client = cohere.ClientV2(api_key=TOKEN, base_url=address)
    with pytest.raises(errors.NotFoundError, match="not served"):
        client.rerank(query=QUERY, documents=DOCUMENTS, model="rerank-v3.5")
    with pytest.raises(errors.UnprocessableEntityError, match="max_tokens_per_doc"):
        client.rerank(query=QUERY, documents=DOCUMENTS, model="words", max_tokens_per_doc=100)


def test_the_client_of_jina(address: str) -> None:
    jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.0) for place, text in enumerate(DOCUMENTS)]
    reranker = jina.JinaRerank(top_n=2, model="words", base_url=f"{address}/v1", api_key=TOKEN)
    ranked = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert [(int(item.node.node_id), item.score) for item in ranked] == expected(2)
    wrong = jina.JinaRerank(top_n=2, model="nonsense", base_url=f"{address}/v1", api_key=TOKEN)
    with pytest.raises(RuntimeError, match="nonsense"):
        wrong.postprocess_nodes(nodes, query_str=QUERY)


def test_an_index_scores_what_it_stores_by_its_vectors(client: TestClient) -> None:
    documents = [{"id": passage.id, "text": passage.text} for passage in PASSAGES]
    body = client.post("/v1/rerank", json={"model": "toy", "query": QUERY, "documents": documents}).json()
    with toy_index() as other:
        hits = rerank(QUERY, PASSAGES, ColBERTScorer(ToyEncoder(), other))
    assert [(item["document"], item["relevance_score"]) for item in body["results"]] == [
        ({"id": hit.id, "text": hit.text}, hit.score) for hit in hits
    ]
    assert body["score_scale"] == "maxsim_sum"
    assert {item["note"]["vectors_from"] for item in body["results"]} == {"stored"}


def test_documents_come_back_as_each_version_does_it(client: TestClient) -> None:
    request = {"query": QUERY, "documents": DOCUMENTS}
    returned = {
        (path, choice): "document" in client.post(path, json={**request, **choice_of(choice)}).json()["results"][0]
        for path in ("/v1/rerank", "/v2/rerank")
        for choice in (None, True, False)
    }
    assert {key for key, value in returned.items() if value} == {
        ("/v1/rerank", None),
        ("/v1/rerank", True),
        ("/v2/rerank", True),
    }


def choice_of(choice: bool | None) -> dict[str, bool]:
    return {} if choice is None else {"return_documents": choice}


def test_no_documents_have_no_results(client: TestClient) -> None:
    response = client.post("/v1/rerank", json={"query": QUERY, "documents": []})
    assert (response.status_code, response.json()["results"]) == (200, [])


def test_rerankers_and_cascades_keep_their_options() -> None:
    cut = Reranker(as_candidate_scorer(WordScorer()), top_n=1)
    cascade = Cascade([("words", Reranker(as_candidate_scorer(WordScorer()), top_n=3))], top_n=2)
    app = create_app({}, {"cut": cut, "cascade": cascade}, ServerSettings(warm_up=False))
    with TestClient(app) as client:
        for model, count in (("cut", 1), ("cascade", 2)):
            body = client.post("/v1/rerank", json={"model": model, "query": QUERY, "documents": DOCUMENTS}).json()
            assert [(item["index"], item["relevance_score"]) for item in body["results"]] == expected(count)


def test_cut_texts_are_reported(app: FastAPI, client: TestClient) -> None:
    class Cutting:
        scale = "own"

        def score_many(self, queries: list[str], candidates: list[list[object]]) -> list[list[object]]:
            from rerank_integrations import Scored

            return [[Scored(1.0, truncated=True, query_truncated=True) for _ in of_query] for of_query in candidates]

        def require_whole(self, queries: object, candidates: object) -> None:
            raise AssertionError

    with TestClient(create_app({}, {"cutting": Cutting()}, ServerSettings(warm_up=False))) as other:  # type: ignore[dict-item]
        body = other.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).json()
    assert body["results"][0]["note"] == {"truncated": True, "query_truncated": True}
    assert body["meta"]["warnings"] == [
        "4 of 4 documents were longer than the model reads, and cut",
        "the query was longer than the model reads, and cut",
    ]
