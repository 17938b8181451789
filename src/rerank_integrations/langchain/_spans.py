"""The spans of OpenInference's instrumentation of LangChain as parents of this package's own."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from uuid import UUID

from rerank_integrations.core import telemetry


def under_run(run_id: UUID) -> AbstractContextManager[object]:
    """Make the span of a run the parent of those that are opened inside, if the run has one.

    LangChain's callbacks cannot make their spans current, so without this ours would be beside them.
    """
    # Only where the application has instrumented LangChain, and so imported this.
    instrumentation = sys.modules.get("openinference.instrumentation.langchain")
    if instrumentation is None or not telemetry.is_enabled():
        return contextlib.nullcontext()
    instrumentor = instrumentation.LangChainInstrumentor()
    span = instrumentor.get_span(run_id) if instrumentor.is_instrumented_by_opentelemetry else None
    return contextlib.nullcontext() if span is None else telemetry.under(span)
