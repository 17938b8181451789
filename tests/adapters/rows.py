"""What both frameworks' results come down to."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_integrations import Hit, Passage


@dataclass(frozen=True)
class Row:
    """A result without its framework."""

    id: str
    score: float
    text: str


def rows_of_hits(hits: list[Hit]) -> list[Row]:
    return [Row(hit.id, hit.score, hit.text) for hit in hits]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


def candidates_of(passages: list[Passage], how_many: int = 12) -> list[Passage]:
    """Every third passage, so that retrieval order is not candidate order."""
    return passages[::3][:how_many]
