"""The values of a reranking: candidates, their scores, their ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rerank_integrations.core.types import RankingNote, VectorSource


@dataclass(frozen=True)
class Candidate:
    """A text to be ranked.

    Parameters
    ----------
    id
        The id under which an index may store it; ``None`` if it has none.
    text
        The text that is scored.
    score
        The score from its retriever, if there is one. It is reported as ``retrieval_score`` and never used.
    content
        The passage's own text, where another form of it is scored; ``None`` if `text` is that.
    """

    id: str | None
    text: str
    score: float | None = None
    content: str | None = None

    def retrieval_note(self, position: int) -> RankingNote:
        """Return its score and rank before reranking; `position` counts from 0."""
        if self.score is None or math.isnan(self.score):
            return {"retrieval_rank": position + 1}
        return {"retrieval_score": float(self.score), "retrieval_rank": position + 1}


def distinct_positions(candidates: Sequence[Candidate]) -> list[int]:
    """Return the positions of the candidates without those that are equal to an earlier one.

    Two candidates are equal if both have the same id, the same `Candidate.text` and the same `Candidate.content`: they
    are one passage that several retrievers, or several queries, found. A candidate without an id equals no other.
    """
    first: dict[object, int] = {}
    for position, candidate in enumerate(candidates):
        key = position if candidate.id is None else (candidate.id, candidate.text, candidate.content)
        first.setdefault(key, position)
    return list(first.values())


@dataclass(frozen=True)
class Scored:
    """A candidate's score, and how it came about.

    Parameters
    ----------
    score
        Higher is better, on the scorer's scale.
    truncated
        Whether the model read only the beginning of the text, or of its best window.
    query_truncated
        Whether the model read only the beginning of the query.
    window
        Character span of the window that scored best; ``None`` without windows.
    vectors
        ``"stored"`` (in the index), ``"cached"`` or ``"encoded"``; ``None`` for a scorer that has no vectors.
    pool_factor
        By what factor these vectors are pooled; 1 for none.
    order
        The key that orders candidates whose scores are rounded, higher first; ``None`` orders by the score.
    """

    score: float
    truncated: bool = False
    query_truncated: bool = False
    window: tuple[int, int] | None = None
    vectors: VectorSource | None = None
    pool_factor: float = 1.0
    order: tuple[float, ...] | None = None

    @property
    def order_key(self) -> tuple[float, ...]:
        """The key that candidates are ordered by, the highest first."""
        return (self.score,) if self.order is None else self.order

    def scaled(self, divisor: int) -> Scored:
        """Return the same with the score divided by `divisor`."""
        return self if divisor == 1 else replace(self, score=self.score / max(1, divisor))

    def note(self) -> RankingNote:
        """Return the documented keys that apply; what is as usual is omitted."""
        note: RankingNote = {}
        if self.vectors is not None:
            note["vectors_from"] = self.vectors
        if self.pool_factor != 1:
            note["pool_factor"] = self.pool_factor
        if self.window is not None:
            note["window_start"], note["window_end"] = self.window
        if self.truncated:
            note["truncated"] = True
        if self.query_truncated:
            note["query_truncated"] = True
        return note


@dataclass(frozen=True)
class Ranked:
    """A candidate that a reranking keeps.

    Parameters
    ----------
    place
        Its position among the candidates, from 0.
    score
        Higher is better.
    note
        How it was scored, by the keys of docs/reference/notes.md; JSON-serialisable.
    """

    place: int
    score: float
    note: RankingNote = field(default_factory=RankingNote)
