"""Clients that break off, stall, hurry or come in crowds: the service goes on, and the others have their answers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from service import GatedScorer, WordScorer, eventually, running, toy_index
from toy import ToyEncoder

from rerank_integrations.server import ServerSettings, create_app

RERANK = {"query": "a query", "documents": ["a", "b"]}
IMPATIENT = ServerSettings(body_timeout=2, warm_up=False)


def request_bytes(body: object, path: str = "/v1/rerank") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def connected(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def in_flight(address: str) -> int:
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    return int(float(next(line for line in lines if line.startswith("rerank_requests_in_flight ")).split()[1]))


def is_well(address: str) -> bool:
    return httpx.post(f"{address}/v1/rerank", json=RERANK, timeout=60).status_code == 200 and in_flight(address) == 0


def ended(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    with toy_index() as index, running(create_app({"toy": index}, {"words": WordScorer()}, IMPATIENT)) as address:
        yield address


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST", b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nX-Slow: ", request_bytes(RERANK) + b"GET /hea"],
    ids=["nothing", "a word", "half a header", "half a second request"],
)
@pytest.mark.slow
def test_a_connection_without_a_whole_head_is_closed(impatient: str, sent: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(sent)
        answer = ended(connection)
    assert answer.startswith(b"HTTP/1.1 200" if sent.startswith(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nC") else b"")
    assert is_well(impatient)


@pytest.mark.slow
def test_a_slow_head_is_closed_however_it_drips(impatient: str) -> None:
    with connected(impatient) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        connection.settimeout(0.05)
        for _ in range(6000):
            connection.sendall(b"a: b\r\n")
            with contextlib.suppress(TimeoutError):
                assert connection.recv(100) == b""
                break
        else:
            raise AssertionError("the connection stays open")
    assert is_well(impatient)


@pytest.mark.slow
def test_a_client_that_reads_nothing_has_no_place_for_long() -> None:
    app = create_app({}, {"toy": ToyEncoder(dim=512)}, ServerSettings(body_timeout=2, max_requests=1, warm_up=False))
    with running(app) as address, connected(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # An answer of many megabytes, more than the buffers of both sides take.
        connection.sendall(request_bytes({"input": ["light " * 400] * 20}, "/v1/embeddings"))
        # It has ended, and the connection is still open.
        eventually(lambda: 'route="/v1/embeddings",status="200"' in httpx.get(f"{address}/metrics", timeout=60).text)
        assert in_flight(address) == 0


def test_requests_in_one_go_are_answered_in_their_order(impatient: str) -> None:
    queries = [f"word{number}" for number in range(20)]
    *first, last = (
        request_bytes({"query": query, "documents": ["nothing", query], "return_documents": True}) for query in queries
    )
    with connected(impatient) as connection:
        connection.sendall(b"".join(first) + last.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
        answers = ended(connection)
    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [json.loads(body)["results"][0]["document"]["text"] for body in bodies] == queries


def test_a_half_closed_connection_is_one_of_a_client_that_has_left() -> None:
    scorer = GatedScorer()
    with running(create_app({}, {"gated": scorer}, ServerSettings(warm_up=False))) as address:
        with connected(address) as connection:
            connection.sendall(request_bytes(RERANK))
            eventually(lambda: scorer.queries == ["a query"])
            connection.shutdown(socket.SHUT_WR)
            assert ended(connection) == b""
        eventually(lambda: scorer.stopped == ["a query"])
        scorer.gate.set()
        assert is_well(address)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_body_that_breaks_off_leaves_nothing_behind(impatient: str, reset: bool) -> None:
    for _ in range(20):
        with connected(impatient) as connection:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request_bytes(RERANK)[:-10])
    eventually(lambda: in_flight(impatient) == 0)
    assert is_well(impatient)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nNo colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/passages?id=%ff%00&where=%7b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=[
        "two lengths",
        "a negative length",
        "a huge length",
        "no chunk",
        "a huge header",
        "no header",
        "TLS",
        "no ASCII",
        "bad escapes",
        "a bad token",
        "websocket",
    ],
)
@pytest.mark.slow
def test_what_is_hardly_http_is_refused(impatient: str, head: bytes) -> None:
    with connected(impatient) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head)
        answer = ended(connection)
    assert not answer.startswith(b"HTTP/1.1 5")
    assert is_well(impatient)


def test_a_crowd_of_idle_connections_leaves_room_for_requests() -> None:
    with toy_index() as index, running(create_app({"toy": index}, {"words": WordScorer()})) as address:
        with contextlib.ExitStack() as crowd:
            for _ in range(300):
                crowd.enter_context(connected(address))
            assert is_well(address)
        assert is_well(address)


def test_those_who_share_a_batch_with_clients_that_leave_have_their_answers() -> None:
    scorer = GatedScorer()
    with (
        running(create_app({}, {"gated": scorer}, ServerSettings(warm_up=False))) as address,
        ThreadPoolExecutor(8) as pool,
    ):
        first = connected(address)
        first.sendall(request_bytes({**RERANK, "query": "first"}))
        eventually(lambda: scorer.queries == ["first"])
        leaving = [connected(address) for _ in range(8)]
        for number, connection in enumerate(leaving):
            connection.sendall(request_bytes({**RERANK, "query": f"leaves {number}"}))
        staying = [
            pool.submit(httpx.post, f"{address}/v1/rerank", json={**RERANK, "query": f"stays {number}"}, timeout=60)
            for number in range(8)
        ]
        eventually(lambda: in_flight(address) == 17)
        # Half of them leave the queue, the others leave while their batch is computed.
        for connection in leaving[:4]:
            connection.close()
        eventually(lambda: in_flight(address) == 13)
        first.close()
        eventually(lambda: scorer.stopped == ["first"] and len(scorer.queries) == 2)
        for connection in leaving[4:]:
            connection.close()
        eventually(lambda: in_flight(address) == 8)
        scorer.gate.set()
        assert [answer.result().status_code for answer in staying] == [200] * 8
    assert not any(query in scorer.queries for query in ("leaves 0", "leaves 1", "leaves 2", "leaves 3"))
    assert sum(query.startswith("stays") for query in scorer.queries) == 8
    assert scorer.stopped == ["first"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        '{"a":' * 150 + "1" + "}" * 150,
        '{"$and":[' * 90 + '{"a": 1}' + "]}" * 90,
        '{"$or": [' + ",".join(['{"year": 1}'] * 5000) + "]}",
        '{"year": {"$in": [' + ",".join(map(str, range(50_000))) + "]}}",
        '{"year": NaN}',
        '{"year": 1e400}',
        '{"year": {"$gte": ' + "9" * 400 + "}}",
    ],
    ids=["deep", "deep and", "a wide or", "a wide in", "NaN", "infinity", "a huge number"],
)
def test_filters_of_all_shapes_are_answered(impatient: str, where: str) -> None:
    body = f'{{"query": "light", "where": {where}}}'.encode()
    response = httpx.post(
        f"{impatient}/v1/search", content=body, headers={"content-type": "application/json"}, timeout=300
    )
    assert response.status_code in (200, 400, 422), response.text
    assert is_well(impatient)
