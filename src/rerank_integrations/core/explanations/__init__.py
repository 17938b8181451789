"""Explanation of a text's ColBERT score by the words that matched: as data, for the terminal and as an HTML page."""

from rerank_integrations.core.explanations.explanation import Explanation
from rerank_integrations.core.explanations.words import MatchedWord, TokenMatch, WordMatch

__all__ = ["Explanation", "MatchedWord", "TokenMatch", "WordMatch"]
