"""Texts in overlapping chunks of a model's tokens, cut where sections, paragraphs, sentences or words end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from rerank_integrations.core.models import ColBERTModel
from rerank_integrations.errors import InvalidInputError

# A model may read much more, and the best match in a long chunk says little about where in it.
_DEFAULT_CHUNK_TOKENS = 256
# By default an eighth of a chunk is repeated in the next one.
_CHUNK_PER_OVERLAP = 8
# Plain text is split in blocks of this many characters, so that a long file is never whole in memory.
_TEXT_BLOCK = 1 << 16
# The structure of Markdown is known from its beginning only, so its blocks are larger than nearly every file.
_MARKDOWN_BLOCK = 1 << 20


class Chunk(NamedTuple):
    """A part of a text, and the character of the text at which it starts."""

    start: int
    text: str


class ChunkSplitter:
    """Splitter of texts into chunks of at most `size` tokens that share at most `overlap` tokens with the one before.

    Parameters
    ----------
    count_tokens
        The function that counts the tokens of a text, without markers.
    """

    def __init__(self, count_tokens: Callable[[str], int], size: int, overlap: int) -> None:
        self._markdown = MarkdownSplitter.from_callback(count_tokens, size, overlap)
        self._text = TextSplitter.from_callback(count_tokens, size, overlap)

    def split(self, parts: Iterable[str], *, markdown: bool = False) -> Iterator[Chunk]:
        """Yield the chunks of the text that `parts` make up; only whitespace between chunks is in none of them."""
        splitter = self._markdown if markdown else self._text
        block = size = _MARKDOWN_BLOCK if markdown else _TEXT_BLOCK
        text, offset = "", 0
        for part in parts:
            text += part
            if len(text) < block:
                continue
            chunks = splitter.chunk_indices(text)
            # The last chunk may go on in the next part: it becomes the start of the next block.
            for start, chunk in chunks[:-1]:
                yield Chunk(offset + start, chunk)
            rest = chunks[-1][0] if chunks else len(text)
            text, offset = text[rest:], offset + rest
            # A chunk that fills a block is not split again for every part that follows.
            block = max(size, 2 * len(text))
        for start, chunk in splitter.chunk_indices(text):
            yield Chunk(offset + start, chunk)


def chunk_splitter(model: ColBERTModel, size: int | None, overlap: int | None) -> ChunkSplitter:
    """Return a splitter that counts the tokens of `model`, which it loads.

    Parameters
    ----------
    size
        The most tokens in a chunk, the markers that the model adds included; by default 256, or fewer if the model
        reads fewer.
    overlap
        The most tokens that a chunk shares with the one before; by default an eighth of `size`.

    Raises
    ------
    InvalidInputError
        If the model would cut chunks of `size` tokens, or `overlap` is more than half of it.
    """
    limit = model.document_limit(model.options().get("document_length"))
    if size is None:
        size = min(limit, _DEFAULT_CHUNK_TOKENS)
    elif size > limit:
        raise InvalidInputError(f"chunk_tokens is {size}; expected at most {limit}, which is what {model.name!r} reads")
    overlap = size // _CHUNK_PER_OVERLAP if overlap is None else overlap
    if overlap > size // 2:
        raise InvalidInputError(f"chunk_overlap is {overlap}; expected at most half of a chunk of {size} tokens")
    (markers,) = model.token_counts([""])

    def count_tokens(text: str) -> int:
        return model.token_counts([text])[0] - markers

    return ChunkSplitter(count_tokens, max(1, size - markers), min(overlap, max(0, size - markers - 1)))
