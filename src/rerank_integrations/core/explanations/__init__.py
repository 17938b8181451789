"""Why a text got its ColBERT score: which words matched, as data, for the terminal and as a page."""

from rerank_integrations.core.explanations.explanation import Explanation, TokenMatch
from rerank_integrations.core.explanations.words import MatchedWord, WordMatch

__all__ = ["Explanation", "MatchedWord", "TokenMatch", "WordMatch"]
