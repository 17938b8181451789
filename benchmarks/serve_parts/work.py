"""The work that is measured: the same requests for the service and for the library, and whether answers are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_integrations import Candidate, ColBERTIndex, CrossEncoderModel, CrossEncoderScorer, Passage, Reranker
from serve_parts.http import request_bytes

DOCUMENTS = 8
WORDS = 40
K = 10
# Batches of other sizes sum in another order.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Request:
    """A query and the documents to rank."""

    query: str
    documents: tuple[str, ...]


def requests_from(passages: Sequence[Passage], count: int) -> list[Request]:
    """Return requests, each with the first words of a passage as the query, and that passage among the documents."""
    drawn = random.Random(1)
    texts = [passage.text.split() for passage in passages]
    return [
        Request(
            " ".join(chosen[:12]),
            tuple(" ".join(words[:WORDS]) for words in (chosen, *drawn.sample(texts, DOCUMENTS - 1))),
        )
        for chosen in drawn.sample(texts, count)
    ]


# A ranking: the position or id of each result and its score, best first.
Ranking = list[tuple[Any, float]]


@dataclass(frozen=True)
class Work:
    """A kind of request.

    Parameters
    ----------
    name
        The name in the figures.
    http
        The request as bytes for the service.
    read
        The ranking in the service's answer.
    call
        The ranking by the library.
    call_many
        The rankings of several requests by one call of the library.
    """

    name: str
    http: Callable[[Request], bytes]
    read: Callable[[Any], Ranking]
    call: Callable[[Request], Ranking]
    call_many: Callable[[Sequence[Request]], list[Ranking]]


def reranking(model: CrossEncoderModel) -> Work:
    """Return the work of ranking the request's documents by a cross-encoder."""
    reranker = Reranker(CrossEncoderScorer(model))

    def call_many(requests: Sequence[Request]) -> list[Ranking]:
        candidates = [[Candidate(None, text) for text in request.documents] for request in requests]
        ranked = reranker.rank_many([request.query for request in requests], candidates)
        return [[(item.place, item.score) for item in of_query] for of_query in ranked]

    return Work(
        "rerank",
        lambda request: request_bytes(
            "POST", "/v2/rerank", {"model": "starter", "query": request.query, "documents": request.documents}
        ),
        lambda body: [(item["index"], item["relevance_score"]) for item in body["results"]],
        lambda request: call_many([request])[0],
        call_many,
    )


def searching(index: ColBERTIndex) -> Work:
    """Return the work of searching an index for the request's query."""
    return Work(
        "search",
        lambda request: request_bytes("POST", "/v1/search", {"query": request.query, "k": K}),
        lambda body: [(hit["id"], hit["score"]) for hit in body["hits"]],
        lambda request: [(hit.id, hit.score) for hit in index.search(request.query, K)],
        lambda requests: [
            [(hit.id, hit.score) for hit in hits]
            for hits in index.search_many([request.query for request in requests], K)
        ],
    )


def is_right(ranking: Ranking, expected: Ranking) -> bool:
    """Return whether a ranking has the expected results and scores; those of nearly equal scores may change places."""
    scores = dict(ranking)
    if len(ranking) != len(expected) or len(scores) != len(ranking):
        return False
    if any(abs(score - right) > TOLERANCE for (_, score), (_, right) in zip(ranking, expected, strict=True)):
        return False
    lowest = expected[-1][1] if expected else 0.0
    # One at the end of the list may have been replaced by another of nearly the same score.
    return all(
        abs(scores[name] - score) <= TOLERANCE if name in scores else score - lowest <= TOLERANCE
        for name, score in expected
    )
