"""Shared parts of the components of every framework: loading models and indexes, caching a reranker, cascades."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rerank_integrations.core.index import ColBERTIndex
from rerank_integrations.core.index.colbert_index import as_index
from rerank_integrations.core.reranking.cascade import Cascade, Stage
from rerank_integrations.core.reranking.colbert_scorer import ColBERTScorer
from rerank_integrations.core.reranking.options import ColBERTRerankOptions, RerankOptions
from rerank_integrations.core.reranking.reranker import Reranker, as_candidate_scorer
from rerank_integrations.core.reranking.scorers import CandidateScorer
from rerank_integrations.core.reranking.specs import ColBERTLike, IndexLike, load_colbert, on_device
from rerank_integrations.core.types import TokenEncoder
from rerank_integrations.errors import InvalidInputError

Component = TypeVar("Component")


def load_model_and_index(
    model: ColBERTLike | None, index: IndexLike | None, device: str | None
) -> tuple[TokenEncoder, ColBERTIndex | None]:
    """Return the model and the open index that a ColBERT reranker works with; load no weights.

    Without `model`, the index's own is used. An index given as a path is opened read-only, with `model` if given.

    Raises
    ------
    InvalidInputError
        If both are ``None``, one is of a wrong kind, or `device` is not the model's.
    ModelMismatchError
        If the index at a path was built with another model.
    """
    placed = on_device(model, device)
    if index is None:
        if placed is None:
            raise InvalidInputError("model and index are both None; expected a model, an index, or both")
        return load_colbert(placed), None
    if placed is None:
        opened = as_index(index)
        return opened.model, opened
    loaded = load_colbert(placed)
    if isinstance(index, str | os.PathLike):
        return loaded, ColBERTIndex.open(index, loaded, read_only=True)
    return loaded, as_index(index)


@dataclass(frozen=True)
class RerankerKind:
    """A kind of reranking component, the same in every framework.

    Parameters
    ----------
    make_scorer
        The scorer's class, or a function that makes a scorer.
    parts
        The fields that are its positional arguments.
    options
        The type of the other fields that concern the core.
    """

    make_scorer: Callable[..., CandidateScorer]
    parts: tuple[str, ...]
    options: type[RerankOptions]


COLBERT = RerankerKind(ColBERTScorer, ("model", "index"), ColBERTRerankOptions)
CROSS_ENCODER = RerankerKind(as_candidate_scorer, ("model",), RerankOptions)


class CachedReranker:
    """A component's reranker, stored with what it was built from, because a component's fields may be set later.

    Parameters
    ----------
    kind
        The kind of the component.
    fields
        The values of the component's fields. A field without a value has the default of its option.

    Raises
    ------
    InvalidInputError
        For an option of a wrong kind, or one that the scorer cannot do.
    """

    def __init__(self, kind: RerankerKind, fields: Mapping[str, object], scorer: CandidateScorer | None = None) -> None:
        self._kind = kind
        self._parts = [fields[name] for name in kind.parts]
        self._options = kind.options.from_component(fields)
        made = kind.make_scorer(*self._parts, **self._options.scorer_arguments()) if scorer is None else scorer
        self._scorer: CandidateScorer = made
        self.reranker: Reranker = Reranker.with_options(made, self._options)

    def matching(self, fields: Mapping[str, object]) -> CachedReranker:
        """Return itself if it was built from the same values, else a new one.

        A new one has the same scorer, with its cached vectors, unless that depends on what has changed.
        """
        options = self._kind.options.from_component(fields)
        same_scorer = (
            all(fields[name] is part for name, part in zip(self._kind.parts, self._parts, strict=True))
            and self._options.scorer_arguments() == options.scorer_arguments()
        )
        if same_scorer and self._options == options:
            return self
        return CachedReranker(self._kind, fields, self._scorer if same_scorer else None)


def require_known_arguments(component: str, arguments: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Raise `TypeError`, as Python does for a misspelt keyword, if `arguments` has a name that is not in `known`."""
    for name in arguments:
        if name not in known:
            raise TypeError(f"{component}.__init__() got an unexpected keyword argument {name!r}")


def require_stages(
    stages: object, kind: type[Component], expected: str, read: Callable[[object], object] | None = None
) -> list[Component]:
    """Return the components of a cascade as a list.

    Parameters
    ----------
    stages
        A sequence or an iterator.
    kind
        The class of the components that may be stages.
    expected
        The words for them in an error.
    read
        Called with each stage first, as to construct one that was serialised.

    Raises
    ------
    InvalidInputError
        If `stages` is one component, or has no order, or contains anything but components of `kind`.
    """
    if isinstance(stages, str) or not isinstance(stages, Sequence | Iterator):
        raise InvalidInputError(f"stages is one {type(stages).__name__}; expected a list of rerankers")
    components: list[Component] = []
    for stage in stages:
        component = stage if read is None else read(stage)
        if not isinstance(component, kind):
            raise InvalidInputError(f"a stage is of type {type(component).__name__}; expected {expected}")
        components.append(component)
    return components


def named_cascade(rerankers: Sequence[tuple[str, Reranker]], top_n: int | None, time_budget: float | None) -> Cascade:
    """Return a cascade of named rerankers; a name's second use becomes ``"<name> 2"``, and so on.

    Raises
    ------
    InvalidInputError
        For no rerankers, or an argument of a wrong kind.
    """
    stages: list[Stage] = []
    uses: dict[str, int] = {}
    for name, reranker in rerankers:
        uses[name] = uses.get(name, 0) + 1
        stages.append(Stage(name if uses[name] == 1 else f"{name} {uses[name]}", reranker))
    return Cascade(stages, top_n=top_n, time_budget=time_budget)
