"""A model of what the service must answer: each caller's passages, and scores computed without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rerank_integrations import ColBERTModel, CrossEncoderModel

# The index stores token vectors in float16; the sums over a query's tokens differ by less than this.
MAXSIM_TOLERANCE = 0.05
LOGIT_TOLERANCE = 1e-3


class Scores:
    """Scores of every text for every query: MaxSim in float64 by NumPy, and the cross-encoder's by the library."""

    def __init__(self, queries: Sequence[str], texts: Sequence[str]) -> None:
        encoder, cross_encoder = ColBERTModel("starter"), CrossEncoderModel("starter")
        of_queries = [np.asarray(array, np.float64) for array in encoder.encode_queries(list(queries))]
        of_texts = [np.asarray(array, np.float64) for array in encoder.encode_documents(list(texts))]
        self.maxsim = {
            (query, text): float((query_vectors @ text_vectors.T).max(axis=1).sum())
            for query, query_vectors in zip(queries, of_queries, strict=True)
            for text, text_vectors in zip(texts, of_texts, strict=True)
        }
        self.logit = {
            (query, text): score
            for query in queries
            for text, score in zip(texts, cross_encoder.score(query, list(texts)), strict=True)
        }


def search_problem(
    scores: Scores, query: str, passages: Mapping[str, str], k: int, hits: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return what is wrong with the hits of a search among `passages`, texts by id; ``None`` if nothing is."""
    ids = [hit["id"] for hit in hits]
    if len(set(ids)) != len(ids) or len(ids) != min(k, len(passages)):
        return f"{len(ids)} hits, {len(set(ids))} of them distinct, for k={k} among {len(passages)} passages"
    for hit in hits:
        if passages.get(hit["id"]) != hit["text"]:
            return f"the text {hit['text']!r} of {hit['id']}, which is {passages.get(hit['id'])!r}"
    right = {passage_id: scores.maxsim[query, text] for passage_id, text in passages.items()}
    for hit in hits:
        if abs(hit["score"] - right[hit["id"]]) > MAXSIM_TOLERANCE:
            return f"the score {hit['score']} of {hit['id']}, which is {right[hit['id']]}"
    given = [hit["score"] for hit in hits]
    if given != sorted(given, reverse=True):
        return f"scores out of order: {given}"
    omitted = max((score for passage_id, score in right.items() if passage_id not in ids), default=-np.inf)
    if given and omitted > given[-1] + MAXSIM_TOLERANCE:
        return f"a passage of score {omitted} is missing, where the last hit has {given[-1]}"
    return None


def rerank_problem(
    right: Mapping[tuple[str, str], float],
    tolerance: float,
    query: str,
    texts: Sequence[str],
    results: Sequence[Mapping[str, Any]],
) -> str | None:
    """Return what is wrong with the results of reranking `texts`; ``None`` if nothing is."""
    if sorted(result["index"] for result in results) != list(range(len(texts))):
        return f"the indices {[result['index'] for result in results]} for {len(texts)} texts"
    given = [result["relevance_score"] for result in results]
    if given != sorted(given, reverse=True):
        return f"scores out of order: {given}"
    for result in results:
        expected = right[query, texts[result["index"]]]
        if abs(result["relevance_score"] - expected) > tolerance:
            return f"the score {result['relevance_score']} of text {result['index']}, which is {expected}"
    return None
