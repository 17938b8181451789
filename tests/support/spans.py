"""Spans of this package, collected in memory by OpenTelemetry's own SDK."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rerank_integrations import telemetry


class Spans:
    """The finished spans, and the provider that collects them."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("the application")

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> list[str]:
        """Return each span as the path of names from its root, in the order in which they began."""
        by_id = {span.context.span_id: span for span in self.all}
        return [path_of(span, by_id) for span in sorted(by_id.values(), key=lambda span: span.start_time or 0)]

    def texts(self) -> str:
        """Return everything that any span shows, as one text."""
        return "\n".join(span.to_json() for span in self.all)


def path_of(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> str:
    parent = None if span.parent is None else by_id.get(span.parent.span_id)
    return span.name if parent is None else f"{path_of(parent, by_id)} > {span.name}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@contextlib.contextmanager
def collected(max_documents: int = 16, **options: Any) -> Iterator[Spans]:
    """Enable telemetry inside, with a provider of its own."""
    spans = Spans(**options)
    telemetry.enable(spans.provider, max_documents=max_documents)
    try:
        yield spans
    finally:
        telemetry.disable()
        spans.provider.shutdown()
