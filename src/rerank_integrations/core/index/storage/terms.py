"""Terms of texts and queries for BM25: words, and overlapping pairs of characters where words have no spaces.

A text is folded first: Unicode's compatibility form (NFKC), lower case, Latin and Greek letters without accents, Hebrew
and Arabic without vowel points. A run of characters of a script without spaces (Chinese, Japanese, Thai, Lao, Burmese,
Khmer) or of Korean becomes its overlapping pairs, and its last character by itself, so that every character begins
exactly one term: a query of one character is a prefix. English stemming follows in SQLite (`text_index`).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

# The rules of this module; a text index that other rules made is not used.
RULES = "1"

_PAIRED = (
    "\u0e00-\u0e4f\u0e80-\u0ecf\u1000-\u103f\u1050-\u109f\u1100-\u11ff\u1780-\u17dd\u3005-\u3007\u3041-\u3096\u309d-\u309f"
    "\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U000323af"
)
# Vowel signs of Indian scripts are no word characters for `re`, and part of the word.
_INDIC = "\u0900-\u0963\u0966-\u0dff"
_RUN = re.compile(f"(?P<paired>[{_PAIRED}]+)|(?:[^\\W_{_PAIRED}]|[{_INDIC}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s\b")
_ACCENTS = re.compile("(?<=[a-z\u03b1-\u03c9])[\u0300-\u036f]+")
_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200d\u2060\ufeff\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670]+"
)
# Lucene's English stop words. A query leaves them out beside other words: they cost most of the time and say nothing.
_STOP_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """a an and are as at be but by for if in into is it no not of on or such that the their then there these they
        this to was will with""",
    )
)


class QueryTerm(NamedTuple):
    """A term of a query; of a prefix, every term that begins with it counts as this term."""

    text: str
    is_prefix: bool = False


def document_terms(text: str) -> list[str]:
    """Return the terms of a stored text, in their order, not stemmed yet."""
    folded = _folded(text)
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    terms: list[str] = []
    for match in _RUN.finditer(folded):
        run = match.group()
        if match["paired"] is None:
            terms.append(run)
        else:
            terms += [run[at : at + 2] for at in range(len(run))]
    return terms


def query_terms(query: str) -> list[QueryTerm]:
    """Return the distinct terms of a query, in their order, not stemmed yet."""
    terms: list[QueryTerm] = []
    for match in _RUN.finditer(_folded(query)):
        run = match.group()
        if match["paired"] is None:
            terms.append(QueryTerm(run))
        elif len(run) == 1:
            terms.append(QueryTerm(run, is_prefix=True))
        else:
            terms += [QueryTerm(run[at : at + 2]) for at in range(len(run) - 1)]
    telling = [term for term in terms if term.text not in _STOP_WORDS]
    return list(dict.fromkeys(telling or terms))


# The triggers of `text_index` ask for a text's terms and for their number, one after the other.
@functools.lru_cache(maxsize=2)
def terms_of_bytes(text: bytes | None) -> tuple[str, int]:
    """Return the terms of a stored text with spaces between them, and their number; bytes but UTF-8's are ignored.

    A damaged row may have no text, and so no terms.
    """
    terms = document_terms((text or b"").decode("utf-8", "ignore"))
    return " ".join(terms), len(terms)


def _folded(text: str) -> str:
    if text.isascii():
        return _POSSESSIVE.sub("", text.lower())
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    plain = _ACCENTS.sub("", _INVISIBLE.sub("", decomposed))
    return _POSSESSIVE.sub("", unicodedata.normalize("NFKC", plain))
