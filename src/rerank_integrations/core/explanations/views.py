"""The common parts of both views: what they need of an explanation, its notes and the strength of a colour."""

from __future__ import annotations

import math
from typing import Protocol

from rerank_integrations.core.explanations.words import TokenMatch, WordMatch

STRENGTHS = 5


class Explained(Protocol):
    """An explanation as the views read it."""

    @property
    def query(self) -> str:
        """Query as given."""

    @property
    def text(self) -> str:
        """Text as given."""

    @property
    def model(self) -> str:
        """Model's name."""

    @property
    def score(self) -> float:
        """MaxSim score."""

    @property
    def matches(self) -> tuple[TokenMatch, ...]:
        """Token matches in the query's order."""

    @property
    def read_to(self) -> int | None:
        """Character at which the model stopped reading the text, or `None`."""

    @property
    def query_read_to(self) -> int | None:
        """Character at which the model stopped reading the query, or `None`."""

    @property
    def pool_factor(self) -> float:
        """Factor by which the index pools the text's token vectors, 1 for none."""

    @property
    def explained(self) -> float:
        """Part of the score that `matches` sum to."""

    def words(self) -> tuple[WordMatch, ...]:
        """Return the words of the query with their matches."""


def strength(cosine: float) -> int:
    """Return 1 for a cosine of up to 0.2, 2 for up to 0.4, and so on to 5."""
    return min(max(math.ceil(cosine * STRENGTHS), 1), STRENGTHS)


def notes(explanation: Explained) -> list[str]:
    """Return the sentences that say what the score is made of, and what the model did not read."""
    lines = [f"{explanation.model}: MaxSim {explanation.score:.3f}"]
    rest = explanation.score - explanation.explained
    if not explanation.matches:
        lines[0] += "; no word of the query has a match"
    elif abs(rest) < 5e-4:
        lines[0] += ", all of it from these words"
    else:
        lines[0] += (
            f" = {explanation.explained:.3f} from these words + {rest:.3f} from the model's markers and expansion"
        )
    lines[0] += "."
    if any(match.end == match.start for match in explanation.matches):
        lines.append("A marker in brackets is the model's own and does not stand in the text.")
    if explanation.pool_factor != 1:
        lines.append(
            f"The index pools token vectors by {explanation.pool_factor:g}, so its score differs from this one."
        )
    for name, text, read_to in (
        ("query", explanation.query, explanation.query_read_to),
        ("text", explanation.text, explanation.read_to),
    ):
        if read_to is not None:
            lines.append(f"The model read {read_to:,} of the {name}'s {len(text):,} characters.")
    return lines
