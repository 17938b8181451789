"""Results of both frameworks in one form, so that tests can compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rerank_integrations import Hit, Passage

# Ids of the passages that the tests rerank.
OWN_KEYS = ("year", "tags")


@dataclass(frozen=True)
class Row:
    """A result, independent of its framework."""

    id: str
    score: float
    text: str


@dataclass(frozen=True)
class Noted:
    """A reranked result with its note; the score before reranking is separate."""

    id: str
    score: float
    note: dict[str, Any]

    @staticmethod
    def of_metadata(passage_id: str, score: float, metadata: dict[str, Any]) -> Noted:
        usual = {*OWN_KEYS, "relevance_score", "relevance_rank", "retrieval_score"}
        return Noted(passage_id, score, {key: value for key, value in metadata.items() if key not in usual})


def noted_of_hits(hits: list[Hit]) -> list[Noted]:
    return [Noted.of_metadata(hit.id, hit.score, dict(hit.note)) for hit in hits]


def rows_of_hits(hits: list[Hit]) -> list[Row]:
    return [Row(hit.id, hit.score, hit.text) for hit in hits]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


def candidates_of(passages: list[Passage], how_many: int = 12) -> list[Passage]:
    """Return every third passage, so that retrieval order is not candidate order."""
    return passages[::3][:how_many]


def long_passages(passages: list[Passage], how_many: int = 6) -> list[Passage]:
    """Return texts of six sentences each, some eighty tokens, and a short one between them."""
    joined = [
        Passage(f"long{start}", " ".join(one.text for one in passages[start : start + 6]), passages[start].metadata)
        for start in range(0, 6 * how_many, 6)
    ]
    return [joined[0], passages[0], *joined[1:]]
