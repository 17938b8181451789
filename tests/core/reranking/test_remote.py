"""A remote reranker scores as the service does, over real HTTP; whatever else comes back is a clear error."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from reranking_services import Answer, RerankingService, WordScorer, reranking_service

from rerank_integrations import (
    Candidate,
    Cascade,
    InvalidInputError,
    MissingExtraError,
    RemoteError,
    RemoteReranker,
    Reranker,
    rerank,
)
from rerank_integrations.core.concurrency.aio import run_blocking
from rerank_integrations.core.concurrency.cancel import GivenUpError, revocable

pytest.importorskip("httpx")

QUERY = "light from solar panels"
TEXTS = [
    "the river rose after the rain",
    "solar panels make electricity from light",
    "light travels faster than sound",
    "a zip file is read without extracting it",
    "",
]
SCORES = WordScorer().score(QUERY, TEXTS)
SECRET = "secret-key-of-the-tests"


@pytest.fixture
def service() -> Iterator[RerankingService]:
    with reranking_service() as running:
        yield running


def results(scores: dict[int, Any]) -> Answer:
    return Answer(body={"results": [{"index": index, "relevance_score": score} for index, score in scores.items()]})


# What is asked, and of which path.


@pytest.mark.parametrize(
    ("given", "api", "path"),
    [
        ("", "auto", "/v1/rerank"),
        ("/", "auto", "/v1/rerank"),
        ("/v1", "auto", "/v1/rerank"),
        ("/v2/rerank", "auto", "/v2/rerank"),
        ("/rerank", "auto", "/rerank"),
        ("/score", "auto", "/score"),
        ("", "cohere", "/v2/rerank"),
        ("/v1/rerank", "cohere", "/v1/rerank"),
        ("", "jina", "/v1/rerank"),
        ("", "vllm", "/v1/rerank"),
        ("", "rerank-integrations", "/v2/rerank"),
        ("/rerank", "vllm", "/rerank"),
        ("/score", "vllm", "/score"),
        ("", "tei", "/rerank"),
        ("/behind/a/proxy", "tei", "/behind/a/proxy/rerank"),
    ],
)
def test_every_interface_gives_the_scores_of_the_local_scorer(
    service: RerankingService, given: str, api: Any, path: str
) -> None:
    with RemoteReranker(service.address + given, "a model", api=api) as remote:
        assert remote.score(QUERY, TEXTS) == SCORES
        assert remote.url == service.address + path
    assert [request.path for request in service.requests] == [path]


def test_the_body_has_the_fields_of_each_interface(service: RerankingService) -> None:
    cohere = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)}
    expected = {
        ("", "cohere"): cohere,
        ("", "jina"): {**cohere, "return_documents": False},
        ("", "auto"): {**cohere, "return_documents": False},
        ("", "vllm"): cohere,
        ("", "rerank-integrations"): cohere,
        ("/score", "vllm"): {"model": "m", "text_1": QUERY, "text_2": TEXTS},
        ("", "tei"): {"query": QUERY, "texts": TEXTS, "raw_scores": False},
    }
    for path, api in expected:
        RemoteReranker(service.address + path, "m", api=api).score(QUERY, TEXTS)
    assert [request.body for request in service.requests] == list(expected.values())


IDS = ["river", "solar", None, "zip", "empty"]
CANDIDATES = [Candidate(passage_id, text, content=text) for passage_id, text in zip(IDS, TEXTS, strict=True)]


def test_ids_are_sent_to_this_packages_own_service_alone(service: RerankingService) -> None:
    documents = [
        {"id": candidate.id, "text": candidate.text} if candidate.id else candidate.text for candidate in CANDIDATES
    ]
    rows = [{"index": index, "relevance_score": score} for index, score in enumerate(SCORES)]
    for row, source in zip(rows, ("stored", "stored", "encoded", "cached", "nonsense"), strict=True):
        row["note"] = {"vectors_from": source}
    service.always = Answer(body={"results": rows})
    [scored] = RemoteReranker(service.address, api="rerank-integrations").score_many([QUERY], [CANDIDATES])
    assert [item.score for item in scored] == SCORES
    assert [item.vectors for item in scored] == ["stored", "stored", "encoded", "cached", None]
    RemoteReranker(service.address).score_many([QUERY], [CANDIDATES])
    assert [request.body["documents"] for request in service.requests] == [documents, TEXTS]


def test_a_text_of_two_passages_is_sent_for_each_of_them(service: RerankingService) -> None:
    candidates = [
        Candidate("a", TEXTS[0]),
        Candidate("b", TEXTS[0]),
        Candidate("a", TEXTS[0]),
        Candidate(None, TEXTS[0]),
    ]
    service.always = results({0: 0.1, 1: 0.2, 2: 0.3})
    [scored] = RemoteReranker(service.address, api="rerank-integrations").score_many([QUERY], [candidates])
    assert [item.score for item in scored] == [0.1, 0.2, 0.1, 0.3]
    assert service.requests[0].body["documents"] == [
        {"id": "a", "text": TEXTS[0]},
        {"id": "b", "text": TEXTS[0]},
        TEXTS[0],
    ]
    with pytest.raises(InvalidInputError, match="surrogate"):
        RemoteReranker(service.address, api="rerank-integrations").score_many([QUERY], [[Candidate("\ud800", "a")]])


# Headers and parameters.


def test_headers_and_parameters_are_sent_saved_and_not_shown(
    service: RerankingService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    remote = RemoteReranker(
        f"{service.address}/v2/rerank?api-version=2024-05-01%2Fpreview&empty=",
        headers={"X-Tenant": "tenant of the tests", "User-Agent": "mine"},
        params={"mode": "a b&c=é"},
        retries=0,
    )
    for again in (remote, pickle.loads(pickle.dumps(remote)), RemoteReranker(**remote.options())):
        assert again.score(QUERY, TEXTS) == SCORES
        assert again.url == f"{service.address}/v2/rerank"
    service.always = Answer(403, {"message": "no"})
    with pytest.raises(RemoteError, match="answered 403") as caught:
        remote.score(QUERY, TEXTS)
    assert {request.path for request in service.requests} == {
        "/v2/rerank?api-version=2024-05-01%2Fpreview&empty=&mode=a%20b%26c%3D%C3%A9"
    }
    for request in service.requests:
        assert (request.headers["x-tenant"], request.headers["user-agent"]) == ("tenant of the tests", "mine")
    shown = repr(remote) + remote.name + str(caught.value) + caplog.text
    assert "HTTP Request: POST" in caplog.text
    for hidden in ("2024-05", "tenant of", "a%20b", "a b&c"):
        assert hidden not in shown


def test_the_key_is_sent_in_another_header(service: RerankingService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    remote = RemoteReranker(service.address, api_key=SECRET, api_key_header="api-key")
    assert remote.score(QUERY, TEXTS) == SCORES
    headers = service.requests[0].headers
    assert (headers["api-key"], "authorization" in headers) == (SECRET, False)
    assert SECRET not in caplog.text + repr(remote) + str(remote.options())
    assert SECRET.encode() not in pickle.dumps(remote)
    assert pickle.loads(pickle.dumps(remote)).options()["api_key_header"] == "api-key"


def test_raw_scores_of_tei_are_logits(service: RerankingService) -> None:
    remote = RemoteReranker(service.address, api="tei", score_scale="logit")
    assert remote.score(QUERY, TEXTS) == [10 * score for score in SCORES]
    assert (remote.scale, RemoteReranker(service.address, api="tei").scale) == ("logit", "probability")


def test_batches_are_joined_in_order_and_equal_texts_are_sent_once(service: RerankingService) -> None:
    texts = [f"light number {number % 60}" for number in range(150)]
    remote = RemoteReranker(service.address, batch_size=7, max_connections=3)
    assert remote.score(QUERY, texts) == WordScorer().score(QUERY, texts)
    sent = [request.body["documents"] for request in service.requests]
    assert [len(batch) for batch in sent].count(7) == 8
    assert sorted(text for batch in sent for text in batch) == sorted(set(texts))
    assert len(service.connections) <= 3


def test_requests_run_side_by_side_up_to_the_limit(service: RerankingService) -> None:
    service.gate.clear()
    remote = RemoteReranker(service.address, batch_size=1, max_connections=3)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(remote.score, QUERY, TEXTS)
        while len(service.requests) < 3:
            time.sleep(0.01)
        service.gate.set()
        assert call.result() == SCORES
    assert service.most_at_once == 3


def test_several_queries_have_requests_of_their_own(service: RerankingService) -> None:
    remote = RemoteReranker(service.address)
    candidates = [Candidate(None, text) for text in TEXTS]
    queries = ["light", "river", "zip"]
    ranked = Reranker(remote).rank_many(queries, [candidates, [], candidates[:2]])
    local = Reranker(_plain()).rank_many(queries, [candidates, [], candidates[:2]])
    assert [[(item.place, item.score) for item in of_query] for of_query in ranked] == [
        [(item.place, item.score) for item in of_query] for of_query in local
    ]
    assert sorted(request.body["query"] for request in service.requests) == ["light", "zip"]


def _plain() -> Any:
    from rerank_integrations import PlainScorer

    return PlainScorer(WordScorer())


def test_no_texts_ask_nothing(service: RerankingService) -> None:
    remote = RemoteReranker(service.address, api_key_env="A_VARIABLE_THAT_IS_NOT_SET")
    assert remote.score(QUERY, []) == []
    assert rerank(QUERY, [], remote) == []
    assert service.requests == []


def test_what_our_own_service_reports_reaches_the_note(service: RerankingService) -> None:
    rows = [{"index": 0, "relevance_score": 2.5, "note": {"truncated": True, "query_truncated": True}}]
    service.always = Answer(body={"score_scale": "logit", "results": rows})
    [hit] = rerank(QUERY, ["a long text"], RemoteReranker(service.address))
    assert (hit.note["score_scale"], hit.note["truncated"], hit.note["query_truncated"]) == ("logit", True, True)
    with pytest.raises(RemoteError, match="the scale 'logit', where score_scale is 'probability'"):
        RemoteReranker(service.address, score_scale="probability").score(QUERY, ["a text"])


# Failures that pass, and failures that do not.


@pytest.mark.parametrize("retry_after", ["0", "Mon, 01 Jan 2024 00:00:00 GMT", "nonsense", "nan"])
def test_a_full_service_is_asked_again(service: RerankingService, retry_after: str) -> None:
    service.answers += [Answer(429, {"message": "full"}, {"Retry-After": retry_after}), Answer(503, {"detail": "busy"})]
    assert RemoteReranker(service.address).score(QUERY, TEXTS) == SCORES
    assert len(service.requests) == 3


def test_a_failure_that_stays_is_an_error_with_its_status(service: RerankingService) -> None:
    service.always = Answer(503, {"message": "the model is gone"}, {"Retry-After": "0"})
    with pytest.raises(RemoteError, match="answered 503: the model is gone; expected it to accept") as caught:
        RemoteReranker(service.address, retries=2).score(QUERY, TEXTS)
    assert len(service.requests) == 3
    assert (caught.value.status, caught.value.retry_after) == (503, 0.0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status, again.retry_after) == (str(caught.value), 503, 0.0)


def test_a_wait_that_ends_after_the_timeout_is_not_begun(service: RerankingService) -> None:
    service.always = Answer(429, {"message": "tomorrow"}, {"Retry-After": "86400"})
    with pytest.raises(RemoteError, match="answered 429: tomorrow"):
        RemoteReranker(service.address, timeout=600).score(QUERY, TEXTS)
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_repeated(service: RerankingService, status: int) -> None:
    service.always = Answer(status, {"error": {"message": "no\nsuch thing"}})
    with pytest.raises(RemoteError, match=f"answered {status}: no such thing; expected") as caught:
        RemoteReranker(service.address, "m").score(QUERY, TEXTS)
    assert caught.value.status == status
    assert len(service.requests) == 1


def test_nobody_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RemoteError, match=f"http://127.0.0.1:{port}/v1/rerank cannot be reached") as caught:
        RemoteReranker(f"http://127.0.0.1:{port}", retries=1).score(QUERY, TEXTS)
    assert caught.value.status is None


def test_a_slow_service_is_given_up_and_its_connection_closed(service: RerankingService) -> None:
    service.gate.clear()
    remote = RemoteReranker(service.address, timeout=0.3)
    with pytest.raises(RemoteError, match=r"no answer to all of 1 requests within 0\.3 s"):
        remote.score(QUERY, TEXTS)
    service.gate.set()
    assert service.closed.wait(60)
    assert RemoteReranker(service.address).score(QUERY, TEXTS) == SCORES


# Answers that are no scores.


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (results({0: 0.1, 1: 0.2, 2: 0.3}), "3 scores for 5 texts, none for text number 3"),
        (results({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 5: 0.5}), "the index 5 for 5 texts"),
        (results({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, -1: 0.5}), "the index -1 for 5 texts"),
        (results({True: 0.5}), "the index True"),
        (results({0: 0.1, 1: math.nan, 2: 0.3, 3: 0.4, 4: 0.5}), "nan as relevance_score of text number 1"),
        (results({0: math.inf}), "inf as relevance_score"),
        (results({0: 10**400}), "as relevance_score of text number 0"),
        (results({0: "0.5"}), "0.5 as relevance_score"),
        (results({0: None}), "None as relevance_score"),
        (Answer(body={"results": [{"index": 0, "relevance_score": 1.0}] * 2}), "two scores for text number 0"),
        (Answer(body={"results": [7]}), "a result of type int"),
        (Answer(body={"data": []}), "no list under 'results'"),
        (Answer(body=[]), "no list under 'results'"),
        (Answer(body=b"<html>Welcome</html>"), "a body that is not JSON"),
        (Answer(body=b""), "a body that is not JSON"),
        (Answer(body=b"[" * 200_000), "a body that is not JSON"),
    ],
)
def test_an_answer_that_is_not_one_score_per_text(service: RerankingService, answer: Answer, words: str) -> None:
    service.always = answer
    with pytest.raises(RemoteError, match="expected one finite number per text") as caught:
        RemoteReranker(service.address).score(QUERY, TEXTS)
    assert words in str(caught.value)
    assert len(service.requests) == 1


def test_a_page_in_place_of_an_error(service: RerankingService) -> None:
    service.always = Answer(404, b"<html>secret words</html>")
    with pytest.raises(RemoteError, match="answered 404: a body of type 'application/json'; expected the address"):
        RemoteReranker(service.address).score(QUERY, TEXTS)


# The key.


def test_the_key_is_sent_and_never_shown(service: RerankingService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TESTS", f"{SECRET}\n")
    by_argument = RemoteReranker(service.address, "m", api_key=SECRET)
    by_variable = RemoteReranker(service.address, "m", api_key_env="KEY_OF_THE_TESTS")
    for remote in (by_argument, by_variable, copy.copy(by_argument), copy.deepcopy(by_argument)):
        assert remote.score(QUERY, TEXTS) == SCORES
        assert SECRET not in repr(remote) + str(remote.options()) + remote.name
        assert SECRET.encode() not in pickle.dumps(remote)
    assert {request.headers["authorization"] for request in service.requests} == {f"Bearer {SECRET}"}
    assert pickle.loads(pickle.dumps(by_variable)).score(QUERY, TEXTS) == SCORES
    service.always = Answer(401, {"message": f"wrong key {SECRET} {'x' * 262}{SECRET}"})
    for remote in (by_argument, by_variable):
        with pytest.raises(RemoteError, match=r"wrong key \[the API key\] x+\[the API key") as caught:
            remote.score(QUERY, TEXTS)
        errors = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert not any(SECRET[:6] in repr(error) or hasattr(error, "request") for error in errors)


def test_a_redirect_is_not_followed(service: RerankingService) -> None:
    with reranking_service() as other:
        service.always = Answer(307, b"", {"Location": f"{other.address.replace('127.0.0.1', 'localhost')}/v1/rerank"})
        with pytest.raises(RemoteError, match="redirects to localhost; redirects are not followed"):
            RemoteReranker(service.address, api_key=SECRET).score(QUERY, TEXTS)
        assert other.requests == []


@pytest.mark.parametrize("location", ["", "//[", "https://user:password@elsewhere/path"])
def test_a_redirect_to_anywhere_is_an_error(service: RerankingService, location: str) -> None:
    service.always = Answer(302, b"", {"Location": location})
    with pytest.raises(RemoteError, match="it redirects to") as caught:
        RemoteReranker(service.address).score(QUERY, TEXTS)
    assert "password" not in str(caught.value)


def test_a_host_that_no_name_can_have() -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        RemoteReranker(f"http://{'a' * 70}.example", retries=0).score(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": 7}, "url is of type int"),
        ({"url": "127.0.0.1:8000"}, "not an address of http or https"),
        ({"url": "ftp://a"}, "not an address of http or https"),
        ({"url": "http://a:99999"}, "not an address of http or https"),
        ({"url": f"http://user:{SECRET}@a"}, "contains a user or a password"),
        ({"url": f"http://a?key={SECRET}"}, "the parameter 'key' in url may be a secret"),
        ({"url": f"http://a?Subscription-Key={SECRET}"}, "the parameter 'Subscription-Key' in url may be a secret"),
        ({"url": f"http://a#{SECRET}"}, "contains a fragment"),
        ({"params": {"sig": SECRET}}, "the parameter 'sig' in params may be a secret"),
        ({"params": [("a", "b")]}, "params is of type list"),
        ({"params": {"a": 7}}, "the value of 'a' in params is of type int"),
        ({"params": {"": "b"}}, "params contains the name ''"),
        ({"params": {"a": "\ud800"}}, "params contains a lone surrogate"),
        ({"url": "http://a?b=1", "params": {"b": "2"}}, "the parameter 'b' is in url and in params"),
        ({"headers": {"Authorization": SECRET}}, "the header 'Authorization' in headers may be a secret"),
        ({"headers": {"X-API-Key": SECRET}}, "the header 'X-API-Key' in headers may be a secret"),
        ({"headers": {"Cookie": SECRET}}, "the header 'Cookie' in headers may be a secret"),
        ({"headers": {"Host": "elsewhere"}}, "headers contains 'Host', which the request sets"),
        ({"headers": {"a b": "c"}}, "headers contains the name 'a b'"),
        ({"headers": {"a": f"{SECRET}\r\nb: c"}}, "the value of the header 'a'"),
        ({"headers": {"a": "1", "A": "2"}}, "expected each name once"),
        ({"headers": {"X-Mine": "1"}, "api_key": SECRET, "api_key_header": "x-mine"}, "expected it once"),
        ({"api_key": SECRET, "api_key_header": "a: b"}, "api_key_header is 'a: b'"),
        ({"api": "other"}, "api is 'other'; expected one of auto, cohere"),
        ({"url": "http://a/score", "api": "tei"}, "expected 'vllm' for /score"),
        ({"model": ""}, "model is ''"),
        ({"api_key": f"{SECRET}\n"}, "api_key is no API key"),
        ({"api_key": 7}, "api_key is of type int"),
        ({"api_key": SECRET, "api_key_env": "A"}, "expected one of them"),
        ({"api_key_env": ""}, "api_key_env is ''"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": math.inf}, "timeout is inf"),
        ({"retries": -1}, "retries is -1"),
        ({"score_scale": "percent"}, "score_scale is 'percent'"),
        ({"api": "tei", "score_scale": "own"}, "score_scale is 'own'; expected one of probability, logit"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RemoteReranker(**{"url": "http://127.0.0.1", **arguments})
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_bad_input_of_a_call_is_refused_before_anything_is_sent(service: RerankingService) -> None:
    remote = RemoteReranker(service.address)
    for query, texts in ((7, ["a"]), ("q", "a"), ("q", [7]), ("q", ["\ud800"])):
        with pytest.raises(InvalidInputError):
            remote.score(query, texts)  # type: ignore[arg-type]
    for options in ({"strict": True}, {"window": 8}):
        with pytest.raises(InvalidInputError, match="RemoteReranker"):
            rerank(QUERY, TEXTS, remote, **options)
    with pytest.raises(InvalidInputError, match="KEY_THAT_IS_NOT_SET is not set"):
        RemoteReranker(service.address, api_key_env="KEY_THAT_IS_NOT_SET").score(QUERY, TEXTS)
    assert service.requests == []


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"rerank-integrations\[remote\]"):
        RemoteReranker("http://127.0.0.1")


# Threads, tasks, processes.


def test_threads_and_event_loops_share_the_connections(service: RerankingService) -> None:
    remote = RemoteReranker(service.address, max_connections=4)
    calls: list[Callable[[], list[float]]] = [
        lambda: remote.score(QUERY, TEXTS),
        lambda: asyncio.run(remote.ascore(QUERY, TEXTS)),
    ]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(call) for call in calls * 10]
        assert all(future.result() == SCORES for future in futures)
    assert len(service.connections) <= 4


async def test_64_calls_wait_without_threads(service: RerankingService) -> None:
    service.gate.clear()
    remote = RemoteReranker(service.address, max_connections=64)
    ranker = Reranker(remote)
    candidates = [Candidate(None, text) for text in TEXTS]
    tasks = [asyncio.create_task(ranker.arank_many([QUERY], [candidates])) for _ in range(64)]
    while len(service.requests) < 64:
        await asyncio.sleep(0.01)
    names = [thread.name for thread in threading.enumerate()]
    # The service has a thread for each; this package has one, whoever used it before.
    assert sum(name == "rerank-integrations-http" for name in names) == 1
    # All of the package's threads for async calls are free: this would otherwise never come back.
    assert await asyncio.gather(*(run_blocking(lambda: 1) for _ in range(64))) == [1] * 64
    service.gate.set()
    expected = Reranker(_plain()).rank(QUERY, candidates)
    for ranked in await asyncio.gather(*tasks):
        assert [(item.place, item.score) for item in ranked[0]] == [(item.place, item.score) for item in expected]


async def test_a_cancelled_task_closes_its_connection(service: RerankingService) -> None:
    service.gate.clear()
    task = asyncio.create_task(RemoteReranker(service.address).ascore(QUERY, TEXTS))
    while not service.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    service.gate.set()
    assert await run_blocking(service.closed.wait, 60)


def test_a_cascade_goes_on_without_a_service_that_is_too_slow(service: RerankingService) -> None:
    service.gate.clear()
    stages = [("local", Reranker(_plain())), ("remote", Reranker(RemoteReranker(service.address), top_n=1))]
    hits = rerank(QUERY, TEXTS, Cascade(stages, time_budget=0.3))
    assert hits[0].note["rerank_stopped"] == "remote: the time budget of 0.3 s ran out"
    assert [hit.text for hit in hits] == [hit.text for hit in rerank(QUERY, TEXTS, WordScorer())]
    service.gate.set()
    assert [hit.score for hit in rerank(QUERY, TEXTS, Cascade(stages))] == [max(SCORES)]


async def test_64_cascades_wait_without_threads(service: RerankingService) -> None:
    service.gate.clear()
    stages = [
        ("local", Reranker(_plain(), top_n=4)),
        ("remote", Reranker(RemoteReranker(service.address, max_connections=64), top_n=3)),
        ("last", Reranker(_plain())),
    ]
    cascade = Cascade(stages)
    candidates = [Candidate(None, text, score=0.5) for text in TEXTS]
    tasks = [asyncio.create_task(cascade.arank(QUERY, candidates)) for _ in range(64)]
    while len(service.requests) < 64:
        await asyncio.sleep(0.01)
    assert await asyncio.gather(*(run_blocking(lambda: 1) for _ in range(64))) == [1] * 64
    service.gate.set()
    answers = await asyncio.gather(*tasks)
    assert answers == [cascade.rank(QUERY, candidates)] * 64
    assert list(answers[0][0].note["rerank_scores"]) == ["local", "remote", "last"]


async def test_an_async_cascade_goes_on_without_a_service_that_is_too_slow_or_fails(service: RerankingService) -> None:
    service.gate.clear()
    candidates = [Candidate(None, text) for text in TEXTS]
    stages = [("local", Reranker(_plain())), ("remote", Reranker(RemoteReranker(service.address), top_n=1))]
    ranked = await Cascade(stages, time_budget=0.5).arank(QUERY, candidates)
    assert ranked[0].note["rerank_stopped"] == "remote: the time budget of 0.5 s ran out"
    local = await Reranker(_plain()).arank(QUERY, candidates)
    assert [(item.place, item.score) for item in ranked] == [(item.place, item.score) for item in local]
    service.gate.set()
    assert await run_blocking(service.closed.wait, 60)
    service.always = Answer(404, {"message": "gone"})
    ranked = await Cascade(stages).arank(QUERY, candidates)
    assert "remote: RemoteError" in ranked[0].note["rerank_stopped"]
    with pytest.raises(InvalidInputError, match="query"):
        await Cascade(stages).arank(" ", candidates)
    assert await Cascade(stages, top_n=0).arank(QUERY, candidates) == []


async def test_a_cancelled_cascade_closes_its_connection(service: RerankingService) -> None:
    service.gate.clear()
    cascade = Cascade([("remote", Reranker(RemoteReranker(service.address)))], time_budget=600)
    task = asyncio.create_task(cascade.arank(QUERY, [Candidate(None, text) for text in TEXTS]))
    while not service.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    service.gate.set()
    assert await run_blocking(service.closed.wait, 60)


@pytest.mark.parametrize("waits_for", ["an answer", "the next attempt"])
def test_work_that_nobody_waits_for_stops(service: RerankingService, waits_for: str) -> None:
    if waits_for == "an answer":
        service.gate.clear()
    service.always = Answer(429, {"message": "full"}, {"Retry-After": "500"})
    remote = RemoteReranker(service.address, timeout=1000)
    context, given_up = revocable()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(context.run, remote.score, QUERY, TEXTS)
        while not service.requests:
            time.sleep(0.01)
        given_up.set()
        assert isinstance(call.exception(), GivenUpError)
    if waits_for == "an answer":
        service.gate.set()
        assert service.closed.wait(60)
    assert len(service.requests) == 1


def test_a_closed_reranker_opens_new_connections(service: RerankingService) -> None:
    remote = RemoteReranker(service.address)
    for _ in range(2):
        assert remote.score(QUERY, TEXTS) == SCORES
        remote.close()
    remote.close()
    assert len(service.connections) == 2


def test_requests_in_flight_survive_a_close(service: RerankingService) -> None:
    service.gate.clear()
    remote = RemoteReranker(service.address)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(remote.score, QUERY, TEXTS)
        while not service.requests:
            time.sleep(0.01)
        remote.close()
        service.gate.set()
        assert call.result() == SCORES
    assert len(service.requests) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_connections_of_its_own(service: RerankingService) -> None:
    remote = RemoteReranker(service.address)
    assert remote.score(QUERY, TEXTS) == SCORES
    child = os.fork()
    if child == 0:
        os._exit(0 if remote.score(QUERY, TEXTS) == SCORES else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert remote.score(QUERY, TEXTS) == SCORES
    assert len(service.connections) == 2
