"""Which token of a text each query token matched, and what that adds to the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from rerank_integrations.core.explanations.words import WordMatch, word_matches

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    query_start, query_end
        Character span of the query token in the query.
    """

    query_token: str
    text_token: str
    score: float
    start: int
    end: int
    query_start: int = 0
    query_end: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Explanation(Sequence[TokenMatch]):
    """Why a text has its MaxSim score: a sequence of `TokenMatch`, one for each token that stands in the query.

    Parameters
    ----------
    query, text
        As given.
    model
        The model's name.
    score
        The MaxSim score, as `ColBERTModel.score` gives it: over all tokens of the query, the checkpoint's markers and
        ``[MASK]`` expansion among them. Higher is better.
    matches
        In the order of the query; none for a text without any token.
    read_to, query_read_to
        The character at which the model stopped reading, where the text or the query was cut; else ``None``.
    """

    query: str
    text: str
    model: str
    score: float
    matches: tuple[TokenMatch, ...]
    read_to: int | None = None
    query_read_to: int | None = None

    @property
    def explained(self) -> float:
        """The part of `score` that `matches` sum to; the rest is of markers and expansion."""
        return sum(match.score for match in self.matches)

    @overload
    def __getitem__(self, place: int) -> TokenMatch: ...

    @overload
    def __getitem__(self, place: slice) -> list[TokenMatch]: ...

    def __getitem__(self, place: int | slice) -> TokenMatch | list[TokenMatch]:
        return list(self.matches[place]) if isinstance(place, slice) else self.matches[place]

    def __len__(self) -> int:
        return len(self.matches)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Explanation):
            return vars(self) == vars(other)
        if isinstance(other, list | tuple):
            return list(self.matches) == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.matches)

    def words(self) -> tuple[WordMatch, ...]:
        """Return the words of the query in order, each with the words of the text that its tokens matched.

        Pieces of a word are put together. Where a script puts no spaces between words (Chinese, Japanese, Thai), each
        piece of the tokenizer stands for a word.
        """
        return word_matches(self.query, self.text, self.matches)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, the words included, as a dictionary that `json.dumps` takes."""
        return {
            "query": self.query,
            "text": self.text,
            "model": self.model,
            "score": self.score,
            "explained": self.explained,
            "query_read_to": self.query_read_to,
            "read_to": self.read_to,
            "words": [word.to_dict() for word in self.words()],
            "matches": [match.to_dict() for match in self.matches],
        }

    def render(self) -> RenderableType:
        """Return it for a `rich.console.Console`: a table of the words, and the text with those it matched marked.

        No control character of a text reaches the terminal, nor one that its encoding has not.
        """
        from rerank_integrations.core.explanations.terminal import TerminalView

        return TerminalView(self)

    def to_text(self, width: int = 100, *, colour: bool = False) -> str:
        """Return what `render` shows, `width` columns wide; with ANSI colours if wanted.

        Raises
        ------
        InvalidInputError
            For a width below 20.
        """
        from rerank_integrations.core.explanations.terminal import as_text

        return as_text(self, width, colour=colour)

    def to_html(self) -> str:
        """Return an HTML page with a heat map of the text; it fetches nothing and runs no script."""
        from rerank_integrations.core.explanations.html import page

        return page(self)
