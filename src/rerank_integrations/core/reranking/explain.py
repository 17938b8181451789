"""The function `explain`: why a passage has its ColBERT score."""

from __future__ import annotations

from dataclasses import replace

from rerank_integrations.core.explanations import Explanation
from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.ranking import require_text
from rerank_integrations.core.reranking.specs import ColBERTLike, load_colbert
from rerank_integrations.core.types import PassageLike, to_passage
from rerank_integrations.errors import InvalidInputError


def explain(query: str, item: PassageLike, model: ColBERTLike) -> Explanation:
    """Explain which words of a passage the words of the query matched, and what each adds to the score.

    Parameters
    ----------
    query
        Must contain more than white space.
    item
        A string, a mapping, a `Passage` or a `Hit`. Its text is encoded again, so the score may differ a little from
        that of an index, whose vectors are rounded.
    model
        A `ColBERTModel`, or its name, path or mapping of arguments.

    Raises
    ------
    InvalidInputError
        For an empty query, or an item or model of a wrong kind. A cross-encoder reads both texts together and has no
        token matches.
    """
    require_text(query, "query")
    text = to_passage(item).text
    loaded = load_colbert(model)
    if not hasattr(loaded, "explain"):
        raise InvalidInputError(
            f"model is of type {type(loaded).__name__}, which has no explain; expected a ColBERTModel"
        )
    explanation: Explanation = loaded.explain(query, text)
    return explanation


def explain_beside(query: str, item: PassageLike, model: ColBERTLike, index: ColBERTIndex | None) -> Explanation:
    """Explain a passage as `explain` does, and name the pooling of the index that may store it."""
    explanation = explain(query, item, model)
    return explanation if index is None else replace(explanation, pool_factor=index.pool_factor)
