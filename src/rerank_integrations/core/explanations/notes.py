"""What both views say of an explanation in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rerank_integrations.core.explanations.explanation import Explanation

STRENGTHS = 5


def strength(cosine: float) -> int:
    """Return 1 for a cosine of up to 0.2, 2 for up to 0.4, and so on to 5."""
    return min(max(math.ceil(cosine * STRENGTHS), 1), STRENGTHS)


def notes(told: Explanation) -> list[str]:
    """Return what the score is made of, and what the model did not read."""
    lines = [f"{told.model}: MaxSim {told.score:.3f}"]
    rest = told.score - told.explained
    if not told.matches:
        lines[0] += "; no word of the query has a match"
    elif abs(rest) < 5e-4:
        lines[0] += ", all of it from these words"
    else:
        lines[0] += f" = {told.explained:.3f} from these words + {rest:.3f} from the model's markers and expansion"
    lines[0] += "."
    if any(match.end == match.start for match in told.matches):
        lines.append("A marker in brackets is the model's own and does not stand in the text.")
    if told.query_read_to is not None:
        lines.append(f"The model read {told.query_read_to:,} of the query's {len(told.query):,} characters.")
    if told.read_to is not None:
        lines.append(f"The model read {told.read_to:,} of the text's {len(told.text):,} characters.")
    return lines
