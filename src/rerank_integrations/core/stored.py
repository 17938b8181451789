"""Candidates scored from the vectors an index holds; only the others are encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rerank_integrations.core.index import ColBERTIndex, as_index
from rerank_integrations.core.maxsim import maxsim_many
from rerank_integrations.core.specs import ColBERTLike, IndexLike, load_colbert
from rerank_integrations.core.types import Scorer
from rerank_integrations.errors import InvalidInputError, ModelMismatchError


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


def candidate_scorer(model: Any, index: ColBERTIndex | None, ids: Sequence[str | None]) -> Scorer:
    """Return the scorer of the candidates that have these `ids`, for one call of ``score(query, texts)``.

    Parameters
    ----------
    model
        What scores when there is no index.
    index
        A candidate that it holds under the same id with the same text is scored from its stored vectors. The
        others are encoded by the index's model, so that all scores of a call compare.
    ids
        One a text, in the order of the texts; ``None`` for a candidate that has no id.

    Raises
    ------
    ModelMismatchError
        From ``score``, if `model` is not the checkpoint that the index was built with.
    """
    return model if index is None else _StoredFirst(model, index, list(ids))


class _StoredFirst:
    def __init__(self, model: Any, index: ColBERTIndex, ids: list[str | None]) -> None:
        self._model = model
        self._index = index
        self._ids = ids

    def score(self, query: str, texts: list[str]) -> list[float]:
        self._require_same_model()
        scores = self._stored(query, texts)
        missing = [place for place in range(len(texts)) if place not in scores]
        if missing:
            encoder = self._index.model
            fresh = encoder.encode_documents([texts[place] for place in missing])
            scores.update(zip(missing, maxsim_many(encoder.encode_queries([query])[0], fresh), strict=True))
        return [scores[place] for place in range(len(texts))]

    def _stored(self, query: str, texts: list[str]) -> dict[int, float]:
        known = [passage_id for passage_id in self._ids if passage_id is not None]
        # The text is compared on the hit itself: another process may replace a passage at any time.
        hits = {hit.id: hit for hit in self._index.rerank(query, known)}
        return {
            place: hits[passage_id].score
            for place, passage_id in enumerate(self._ids)
            if passage_id in hits and hits[passage_id].text == texts[place]
        }

    def _require_same_model(self) -> None:
        ours, theirs = self._model, self._index.model
        if ours is not theirs and ours.fingerprint != theirs.fingerprint:
            raise ModelMismatchError(
                f"the reranker's model is {ours.name!r} ({ours.fingerprint}); "
                f"expected that of the index, {theirs.name!r} ({theirs.fingerprint})"
            )
