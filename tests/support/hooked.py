"""Models that call a function each time that they are used, for the suites of rerank_integrations.testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from toy import Floats, ToyEncoder


class HookedScorer:
    """Scores by length."""

    def __init__(self, hook: Callable[[], None]) -> None:
        self._hook = hook

    def score(self, query: str, texts: list[str]) -> list[float]:
        self._hook()
        return [float(len(text)) for text in texts]


class HookedEncoder(ToyEncoder):
    """Calls the function for each query."""

    def __init__(self, hook: Callable[[], None]) -> None:
        super().__init__("hooked")
        self._hook = hook

    def encode_queries(self, texts: Sequence[str]) -> list[Floats]:
        self._hook()
        return super().encode_queries(texts)
