"""Models that hand out vectors made before, so that encoding and searching can be timed apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_integrations.core.maxsim import Floats
from rerank_integrations.core.models import TokenEncoder


class Encoded(str):
    """A query that brings its vectors along."""

    vectors: Floats


def encoded(query: str, model: TokenEncoder) -> Encoded:
    """Encode a query for a model of `given_queries` or `given_vectors`."""
    brought = Encoded(query)
    brought.vectors = model.encode_queries([query])[0]
    return brought


def given_queries(model: TokenEncoder) -> TokenEncoder:
    """Return `model`, but for its queries, which are to be `Encoded`."""
    return _GivenQueries(model)


def given_vectors(model: TokenEncoder, passages: Mapping[str, NDArray[np.float16]]) -> TokenEncoder:
    """Return `model`, but for its passages, which are found here by their text.

    Parameters
    ----------
    model
        The one that made the vectors, or `given_queries` of it.
    passages
        *Shape:* (tokens, dim) each. An index stores float16 in any case.
    """
    return _GivenVectors(model, passages)


class _Like:
    # Every name written out: from Python 3.12 on, the check of a protocol does not see what __getattr__ would find.
    def __init__(self, model: TokenEncoder) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def dim(self) -> int:
        return self._model.dim

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    @property
    def device(self) -> str:
        return str(getattr(self._model, "device", "cpu"))

    def options(self) -> dict[str, Any]:
        return self._model.options()

    def encode_queries(self, texts: Sequence[Any]) -> list[Floats]:
        return self._model.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return self._model.encode_documents(texts, show_progress)


class _GivenQueries(_Like):
    def encode_queries(self, texts: Sequence[Any]) -> list[Floats]:
        return [text.vectors for text in texts]


class _GivenVectors(_Like):
    def __init__(self, model: TokenEncoder, passages: Mapping[str, NDArray[np.float16]]) -> None:
        super().__init__(model)
        self._passages = passages

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[Floats]:
        return [self._passages[text].astype(np.float32) for text in texts]
