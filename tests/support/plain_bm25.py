"""BM25 in plain Python, from the formula alone: what an index's text search should give."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping

import Stemmer


def plain_bm25(query: str, texts: Mapping[str, str], *, k1: float = 1.2, b: float = 0.75) -> dict[str, float]:
    """Return the score of each of `texts` (id to text) that has a word of the query; English words and digits alone."""
    words = {key: _stems(text) for key, text in texts.items()}
    mean = sum(map(len, words.values())) / max(1, len(words))
    scores: dict[str, float] = {}
    asked = [word for word in _words(query) if word not in STOP_WORDS] or _words(query)
    for stem in dict.fromkeys(_stemmer.stemWord(word) for word in asked):
        counts = {key: count for key, list_ in words.items() if (count := Counter(list_)[stem])}
        idf = math.log(1 + (len(texts) - len(counts) + 0.5) / (len(counts) + 0.5))
        for key, count in counts.items():
            norm = k1 * (1 - b + b * len(words[key]) / mean)
            scores[key] = scores.get(key, 0.0) + idf * count * (k1 + 1) / (count + norm)
    return scores


# Martin Porter's original algorithm, which SQLite has too.
_stemmer = Stemmer.Stemmer("porter")
STOP_WORDS = re.findall(
    "[a-z]+",
    """a an and are as at be but by for if in into is it no not of on or such that the their then there these they this
    to was will with""",
)


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", re.sub(r"\b's\b", "", text.lower()))


def _stems(text: str) -> list[str]:
    return [_stemmer.stemWord(word) for word in _words(text)]
