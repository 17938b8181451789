"""BM25 in English and Chinese."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from rerank_integrations.core.types import Passage
from rerank_integrations.errors import MissingExtraError

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_CHINESE_SHARE = 0.1
# The result of bm25s' tokenizer, a library without types.
_Tokens: TypeAlias = Any


class BM25:
    """bm25s with k1 0.9 and b 0.4; Snowball stems and stop words in English, pairs of characters in Chinese."""

    def build(self, passages: Sequence[Passage]) -> None:
        """Index all passages; as Chinese if a tenth of their characters are Chinese."""
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("evaluate", "BM25") from error
        self._ids = [passage.id for passage in passages]
        texts = [passage.text for passage in passages]
        sample = "".join(texts[:: max(1, len(texts) // 1000)])
        self._chinese = len(_CHINESE.findall(sample)) > _CHINESE_SHARE * len(sample)
        # It logs every index that it builds.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._index = bm25s.BM25(k1=0.9, b=0.4)
        self._index.index(self._tokens(texts), show_progress=False)

    def encode(self, query: str) -> _Tokens:
        """Return the query's stems."""
        return self._tokens([query])

    def retrieve(self, query: _Tokens, depth: int) -> list[str]:
        """Return the ids of passages that share a stem with the query, best first."""
        positions, scores = self._index.retrieve(query, k=min(depth, len(self._ids)), show_progress=False)
        # Passages that share no word with the query have a score of 0.
        return [self._ids[position] for position, score in zip(positions[0], scores[0], strict=True) if score > 0]

    def bytes(self) -> int:
        """Return the size of the lists of scores."""
        return sum(int(array.nbytes) for array in self._index.scores.values() if isinstance(array, np.ndarray))

    def _tokens(self, texts: list[str]) -> _Tokens:
        import bm25s
        import Stemmer

        if self._chinese:
            return bm25s.tokenize([_pairs(text) for text in texts], stopwords=[], show_progress=False)
        return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)


def _pairs(text: str) -> str:
    """Separate overlapping pairs of Chinese characters by spaces; other words stay as they are."""
    runs = re.findall(r"[\u3400-\u9fff]+|[^\W\u3400-\u9fff]+", text)
    return " ".join(
        " ".join(run[at : at + 2] for at in range(max(1, len(run) - 1))) if _CHINESE.match(run) else run for run in runs
    )
