"""Spans below those that OpenInference's instrumentation of each framework has, in both frameworks alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")

from spans import Spans, attributes, collected

from rerank_integrations import ColBERTIndex, CrossEncoderModel, Passage

QUERY = "Where do rivers begin?"
INSTRUMENTORS = {
    "langchain": ("openinference.instrumentation.langchain", "LangChainInstrumentor"),
    "llama-index": ("openinference.instrumentation.llama_index", "LlamaIndexInstrumentor"),
}


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as made:
        yield made


@pytest.fixture
def instrumented(harness: Any, spans: Spans) -> Iterator[Spans]:
    """Instrument the framework, as its users do, with the provider that our spans go to."""
    module, name = INSTRUMENTORS[harness.extra]
    instrumentor = getattr(pytest.importorskip(module), name)()
    instrumentor.instrument(tracer_provider=spans.provider, skip_dep_check=True)
    try:
        yield spans
    finally:
        instrumentor.uninstrument()


def paths(spans: Spans, name: str) -> list[str]:
    """Return the paths of the spans of this name, without the names of the framework's own."""
    return [path for path in spans.tree() if path.endswith(f" > {name}") or path == name]


def test_a_component_opens_the_spans_of_the_core(
    harness: Any, index: ColBERTIndex, cross_encoder: CrossEncoderModel, passages: list[Passage], spans: Spans
) -> None:
    harness.retrieve(harness.retriever(index, k=3), QUERY)
    harness.rerank(harness.cross_encoder_rerank(model=cross_encoder), harness.candidates(passages[:4]), QUERY)
    assert spans.tree() == [
        "ColBERTIndex.search",
        "ColBERTIndex.search > ColBERTModel.encode_queries",
        "Reranker.rank",
        "Reranker.rank > CrossEncoderModel.score",
    ]
    ids = [attributes(spans.one("Reranker.rank"))[f"reranker.input_documents.{n}.document.id"] for n in range(4)]
    assert ids == [passage.id for passage in passages[:4]]


def test_our_spans_are_below_those_of_the_framework(
    harness: Any, index: ColBERTIndex, cross_encoder: CrossEncoderModel, passages: list[Passage], instrumented: Spans
) -> None:
    harness.retrieve(harness.retriever(index, k=3), QUERY)
    harness.rerank(harness.cross_encoder_rerank(model=cross_encoder), harness.candidates(passages[:4]), QUERY)
    (search,) = paths(instrumented, "ColBERTIndex.search")
    (ranking,) = paths(instrumented, "Reranker.rank")
    assert "ColBERTRetriever" in search.split(" > ")[0]
    assert "CrossEncoderRerank" in ranking.split(" > ")[0]


async def test_our_spans_are_below_those_of_the_framework_in_asynchronous_calls(
    harness: Any, index: ColBERTIndex, cross_encoder: CrossEncoderModel, passages: list[Passage], instrumented: Spans
) -> None:
    await harness.aretrieve(harness.retriever(index, k=3), QUERY)
    await harness.arerank(harness.cross_encoder_rerank(model=cross_encoder), harness.candidates(passages[:4]), QUERY)
    (search,) = paths(instrumented, "ColBERTIndex.search")
    (ranking,) = paths(instrumented, "Reranker.rank")
    assert "ColBERTRetriever" in search.split(" > ")[0]
    assert "CrossEncoderRerank" in ranking.split(" > ")[0]
