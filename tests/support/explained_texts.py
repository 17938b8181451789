"""Pairs of a query and a text to explain, and explanations made by hand."""

from __future__ import annotations

from corpus import ENGLISH, LONG_TEXT

from rerank_integrations import Explanation, TokenMatch

COMBINING = "The cafe\u0301 serves cre\u0300me bru\u0302le\u0301e."
PAIRS = {
    "english": ("read a zip file", ENGLISH[2]),
    "pieces": ("extracting photographs", "Compression makes text much smaller, but photographs hardly shrink."),
    "chinese": ("中国的首都", "北京是中国的首都。"),
    "full width": ("净利润？", "“公司”今年（２０２４）的净利润：增长了！百分之十二。"),
    "emoji": ("👍 zip 👩\u200d👩\u200d👧", "A 👍🏽 zip👍 file 🎉, with 👩\u200d👩\u200d👧."),
    "combining": ("the cafe\u0301", COMBINING),
    "cut": ("old library fire", LONG_TEXT),
    "empty": ("read a zip file", ""),
    "punctuation": ("zip?", "... -- !?"),
    "unknown": ("ξένος ☃ 鑫", "Ο ξένος and a ☃ with 鑫"),
    "blank query": ("  ", "a zip file"),
    "controls": ("zip", "a\x1b[31m zip\x07 \u202efile\x9b2J\x00"),
}


def make_explanation(query: str, text: str, pieces: list[tuple[str, str, float]]) -> Explanation:
    """Return an explanation of the query's pieces in order, each with its piece of the text; "" is a marker."""
    matches, position = [], 0
    for query_piece, text_piece, score in pieces:
        position = query.index(query_piece, position)
        start = text.index(text_piece) if text_piece else 0
        token = text_piece or "[SEP]"
        query_end = position + len(query_piece)
        matches.append(TokenMatch(query_piece, token, score, start, start + len(text_piece), position, query_end))
        position = query_end
    return Explanation(query, text, "hand", sum(match.score for match in matches) + 1, tuple(matches))
