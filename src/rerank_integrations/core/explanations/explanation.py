"""Explanation of a text's score: the matches of all query tokens, as data and in two views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from rerank_integrations.core.explanations.words import TokenMatch, WordMatch, word_matches

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, eq=False)
class Explanation(Sequence[TokenMatch]):
    """Explanation of a text's MaxSim score: a sequence of `TokenMatch`, one for each token that stands in the query.

    Parameters
    ----------
    query, text
        The texts as given.
    model
        The model's name.
    score
        The MaxSim score, as `ColBERTModel.score` gives it: over all tokens of the query, the checkpoint's markers and
        ``[MASK]`` expansion among them. Higher is better.
    matches
        The token matches in the order of the query; none for a text without any token.
    read_to, query_read_to
        The character at which the model stopped reading, where the text or the query was cut; else ``None``.
    pool_factor
        By what factor the index that stores the text pools its token vectors; 1 for none. The explanation is of the
        vectors before that, so the index's score differs.
    """

    query: str
    text: str
    model: str
    score: float
    matches: tuple[TokenMatch, ...]
    read_to: int | None = None
    query_read_to: int | None = None
    pool_factor: float = 1.0

    @property
    def explained(self) -> float:
        """The part of `score` that `matches` sum to; markers and expansion add the rest."""
        return sum(match.score for match in self.matches)

    @overload
    def __getitem__(self, index: int) -> TokenMatch: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenMatch]: ...

    def __getitem__(self, index: int | slice) -> TokenMatch | list[TokenMatch]:
        return list(self.matches[index]) if isinstance(index, slice) else self.matches[index]

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

        The pieces of a word are joined. Where a script puts no spaces between words (Chinese, Thai, Hiragana), each
        piece of the tokenizer stands for a word.
        """
        return word_matches(self.query, self.text, self.matches)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, the words included, as a dictionary that `json.dumps` takes; no factor that is 1."""
        pooling = {} if self.pool_factor == 1 else {"pool_factor": self.pool_factor}
        return {
            "query": self.query,
            "text": self.text,
            "model": self.model,
            "score": self.score,
            "explained": self.explained,
            "query_read_to": self.query_read_to,
            "read_to": self.read_to,
            **pooling,
            "words": [word.to_dict() for word in self.words()],
            "matches": [match.to_dict() for match in self.matches],
        }

    def render(self) -> RenderableType:
        """Return a view for a `rich.console.Console`: a table of the words, and the text with its matched words marked.

        A control character of a text never reaches the terminal, nor does a character that its encoding lacks.
        """
        from rerank_integrations.core.explanations.terminal import TerminalView

        return TerminalView(self)

    def to_text(self, width: int = 100, *, colour: bool = False) -> str:
        """Return the view of `render` as a string, `width` columns wide, with ANSI colours if `colour` is true.

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
