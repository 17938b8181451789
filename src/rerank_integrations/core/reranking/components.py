"""What a reranking component is made of: its model, its index, its scorer, its stages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.reranking import CandidateScorer, Reranker
from rerank_integrations.core.specs import ColBERTLike, IndexLike, load_colbert
from rerank_integrations.errors import InvalidInputError


def reranking_parts(model: ColBERTLike | None, index: IndexLike | None) -> tuple[Any, ColBERTIndex | None]:
    """Return the model and the open index that a ColBERT reranker works with; loads no weights.

    Without `model`, the index's own. An index given as a path is opened read-only, with `model` if given.

    Raises
    ------
    InvalidInputError
        If both are ``None``, or one is of a wrong kind.
    ModelMismatchError
        If the index at a path was built with another model.
    """
    if index is None:
        if model is None:
            raise InvalidInputError("model and index are both None; expected a model, an index, or both")
        return load_colbert(model), None
    if model is None:
        opened = as_index(index)
        return opened.model, opened
    loaded = load_colbert(model)
    if isinstance(index, str | os.PathLike):
        return loaded, ColBERTIndex.open(index, loaded, read_only=True)
    return loaded, as_index(index)


class KeptScorer:
    """A scorer, and what it was made of: a component's options may be set after it was constructed.

    Parameters
    ----------
    make
        The scorer's class, or a function that makes one.
    parts
        Its positional arguments, model and index, under the names of the component's fields.
    options
        Its other arguments, under these names too.
    """

    def __init__(self, make: Callable[..., CandidateScorer], parts: Mapping[str, Any], **options: Any) -> None:
        self._make = make
        self._parts = parts
        self._options = options
        self.scorer = make(*parts.values(), **options)

    def of(self, component: Any) -> KeptScorer:
        """Return itself if it is made of what `component` holds, or else another, which starts with an empty cache."""
        parts = {name: getattr(component, name) for name in self._parts}
        options = {name: getattr(component, name) for name in self._options}
        same = all(parts[name] is part for name, part in self._parts.items()) and options == self._options
        return self if same else KeptScorer(self._make, parts, **options)


def reranker_of(component: Any, kept: KeptScorer) -> Reranker:
    """Return the reranker of a component's own options."""
    return Reranker(
        kept.scorer,
        top_n=component.top_n,
        threshold=component.score_threshold,
        max_candidates=component.max_candidates,
        strict=component.strict,
    )


def stage_list(stages: Any) -> list[Any]:
    """Return the stages of a cascade as a list.

    Raises
    ------
    InvalidInputError
        If `stages` is one reranker, or nothing with an order.
    """
    if isinstance(stages, str) or not isinstance(stages, Sequence | Iterator):
        raise InvalidInputError(f"stages is one {type(stages).__name__}; expected a list of rerankers")
    return list(stages)
