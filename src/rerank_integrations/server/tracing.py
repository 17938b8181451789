"""OpenTelemetry in the service: a span per request, and the SDK set up by its own environment variables."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from rerank_integrations.core import telemetry
from rerank_integrations.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from starlette.types import Scope

_logger = logging.getLogger("rerank_integrations.server")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTERS = "OTEL_TRACES_EXPORTER"
_EXCLUDED = ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS")
_SERVICE_NAME = "rerank-integrations"
# Probes and metrics are asked for every few seconds.
_UNTRACED = "/health$,/ready$,/metrics$"
# The default protocol of the specification, and the exporter of the extra.
_DEFAULT_PROTOCOL = "http/protobuf"


def add_request_spans(app: FastAPI) -> None:
    """Give each request of an application a span, the child of what its ``traceparent`` names.

    Raises
    ------
    MissingExtraError
        If OpenTelemetry's instrumentation of FastAPI is not installed (extra ``[telemetry]``).
    """
    try:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    except ModuleNotFoundError as error:
        raise MissingExtraError("telemetry", "telemetry of the HTTP service") from error
    FastAPIInstrumentor.instrument_app(
        app,
        server_request_hook=_hide_query,
        tracer_provider=telemetry.provider(),
        # None leaves it to these variables.
        excluded_urls=None if any(os.environ.get(name) for name in _EXCLUDED) else _UNTRACED,
        exclude_spans=["receive", "send"],
    )


def _hide_query(span: Span, scope: Scope) -> None:
    """Hide the query string, which has filters and ids, if inputs are hidden."""
    if scope.get("query_string") and telemetry.hides_inputs():
        # The stable name, and two of before.
        for name in {"url.query", "http.url", "http.target"} & set(getattr(span, "attributes", None) or {}):
            span.set_attribute(name, "__REDACTED__")


@contextlib.contextmanager
def tracing_by_environment() -> Iterator[None]:
    """Export spans inside, if OpenTelemetry's variables name an exporter; flush them at the end.

    Where the program was started under ``opentelemetry-instrument``, that has set up everything.

    Raises
    ------
    InvalidInputError
        For an exporter that is not installed, or a protocol that no exporter has.
    """
    if not _is_configured(os.environ):
        yield
        return
    # The names of attributes that are stable now. OpenTelemetry's library still has the old ones by default.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    try:
        telemetry.enable()
        provider = _provider()
    except MissingExtraError as error:
        telemetry.disable()
        # Such variables are often set for a whole cluster: the service answers without them too.
        _logger.warning("no spans are exported, though OpenTelemetry's variables ask for them: %s", error)
        yield
        return
    try:
        yield
    finally:
        telemetry.disable()
        if provider is not None:
            provider.shutdown()


def _is_configured(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get(_EXPORTERS, "").strip()
    return exporters != "none" and (bool(exporters) or any(environ.get(name, "").strip() for name in _ENDPOINTS))


def _provider() -> TracerProvider | None:
    """Set a global provider by the environment and return it; ``None`` where there is one already."""
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtraError("telemetry", "exporting spans") from error
    import rerank_integrations

    attributes: dict[str, Any] = {SERVICE_VERSION: rerank_integrations.__version__}
    resource = Resource.create()
    if resource.attributes.get(SERVICE_NAME, "unknown_service").startswith("unknown_service"):  # type: ignore[union-attr]
        attributes[SERVICE_NAME] = _SERVICE_NAME
    # It reads the sampler and all limits from the environment by itself.
    provider = TracerProvider(resource=resource.merge(Resource(attributes)))
    for name in (os.environ.get(_EXPORTERS) or "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    trace.set_tracer_provider(provider)
    return provider


def _exporter(name: str) -> SpanExporter:
    """Return the exporter of this name among those that installed packages register."""
    if name == "otlp":
        variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next((value for key in variables if (value := os.environ.get(key, "").strip())), _DEFAULT_PROTOCOL)
        name = {_DEFAULT_PROTOCOL: "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, "")
        if not name:
            raise InvalidInputError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; expected http/protobuf or grpc")
    registered = entry_points(group="opentelemetry_traces_exporter")
    found = [point for point in registered if point.name == name]
    if not found and name == "otlp_proto_http":
        raise MissingExtraError("telemetry", "exporting spans")
    if not found:
        names = sorted({point.name for point in registered})
        raise InvalidInputError(
            f"the exporter of spans {name!r} is not installed; expected one of {names}, or pip install "
            f"{'opentelemetry-exporter-otlp-proto-grpc' if name == 'otlp_proto_grpc' else 'the package that has it'}"
        )
    exporter: SpanExporter = found[0].load()()
    return exporter
