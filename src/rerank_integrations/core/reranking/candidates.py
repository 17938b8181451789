"""What goes through a reranking: candidates, their scores, their places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """A text to be ranked.

    Parameters
    ----------
    id
        What an index may hold it under; ``None`` where it has none.
    text
        What is scored.
    score
        What its retriever gave it, if anything; kept as ``retrieval_score``, never read.
    """

    id: str | None
    text: str
    score: float | None = None

    def came(self, place: int) -> dict[str, Any]:
        """Return, under the documented keys, its score and rank before reranking; `place` counts from 0."""
        told = {} if self.score is None or math.isnan(self.score) else {"retrieval_score": float(self.score)}
        return {**told, "retrieval_rank": place + 1}


@dataclass(frozen=True)
class Scored:
    """A candidate's score, and how it came about.

    Parameters
    ----------
    score
        Higher is better, on the scorer's scale.
    truncated
        Whether the model read the beginning only of the text, or of its best window.
    query_truncated
        Whether the model read the query's beginning only.
    window
        Character span of the window that scored best; ``None`` without windows.
    vectors
        ``"stored"`` (of the index), ``"cached"`` or ``"encoded"``; ``None`` for a scorer that has no vectors.
    order
        What it is ordered by where the score is rounded, higher first; ``None``: the score.
    """

    score: float
    truncated: bool = False
    query_truncated: bool = False
    window: tuple[int, int] | None = None
    vectors: str | None = None
    order: tuple[float, ...] | None = None

    @property
    def order_key(self) -> tuple[float, ...]:
        """The number that candidates are ordered by, the highest first."""
        return (self.score,) if self.order is None else self.order

    def scaled(self, divisor: int) -> Scored:
        """Return the same with the score divided by `divisor`."""
        return self if divisor == 1 else replace(self, score=self.score / max(1, divisor))

    def note(self) -> dict[str, Any]:
        """Return what is to be said of it, under the documented keys; what is as usual is left out."""
        said: dict[str, Any] = {}
        if self.vectors is not None:
            said["vectors_from"] = self.vectors
        if self.window is not None:
            said["window_start"], said["window_end"] = self.window
        if self.truncated:
            said["truncated"] = True
        if self.query_truncated:
            said["query_truncated"] = True
        return said


@dataclass(frozen=True)
class Ranked:
    """A candidate that was kept.

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
    note: Mapping[str, Any] = field(default_factory=dict)
