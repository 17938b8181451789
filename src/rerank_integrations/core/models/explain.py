"""Which word of a text each query token matched."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TokenMatch:
    """The best match of one query token in a text.

    Parameters
    ----------
    query_token, text_token
        As the tokenizer writes them.
    score
        Cosine of the two token vectors; a passage's MaxSim score is the sum over the query's tokens.
    start, end
        Character span of the text token in the text; 0 and 0 for a marker that the text does not hold.
    """

    query_token: str
    text_token: str
    score: float
    start: int
    end: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)
