"""OpenTelemetry spans of searches, encodings and rerankings, with OpenInference's names.

This is the only module that imports OpenTelemetry, and `enable` is the first to do so. Until then every function here
reads one variable and returns `OFF`. Texts are never formatted or copied for a span that nobody records.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, get_args

from rerank_integrations.core.checks import whole_number
from rerank_integrations.core.concurrency.cancel import GivenUpError
from rerank_integrations.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from openinference.instrumentation import OITracer, TraceConfig
    from opentelemetry import trace
    from opentelemetry.trace import Link
    from typing_extensions import Self

Kind: TypeAlias = Literal["retriever", "embedding", "reranker", "chain"]
Task: TypeAlias = Literal["query", "document"]

# Where a span shows documents: those that a search found, that a reranking was given, and that it kept.
FOUND = "retrieval.documents"
GIVEN = "reranker.input_documents"
KEPT = "reranker.output_documents"

# The SDK drops the oldest attributes of a span with more than 128 of them. A reranking shows this many documents before
# and after, with three attributes each.
_MAX_DOCUMENTS = 16
_HIDDEN = "__REDACTED__"
_LIBRARY = "rerank_integrations"
# What is absent without the extra; any other missing module is an error of its own.
_EXTRA = ("openinference", "opentelemetry", "wrapt")


class Document(Protocol):
    """Protocol of what a span shows of a passage, a hit or a candidate."""

    @property
    def id(self) -> str | None:
        """The passage's id."""
        ...

    @property
    def text(self) -> str:
        """The passage's text."""
        ...

    @property
    def score(self) -> float | None:
        """The score, if there is one."""
        ...


class Place(Protocol):
    """Protocol of a ranked candidate: its position among all, and its score."""

    @property
    def place(self) -> int:
        """The position, from 0."""
        ...

    @property
    def score(self) -> float:
        """The score."""
        ...


Hits = TypeVar("Hits", bound="Sequence[Sequence[Document]]")
Ranking = TypeVar("Ranking", bound="Sequence[Sequence[Place]]")
Ids = TypeVar("Ids", bound="Sequence[str]")


class NoSpan:
    """Span while telemetry is off: it accepts everything and does nothing."""

    __slots__ = ()
    is_recording = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, **values: Any) -> None:
        """Ignore attributes."""

    def computed(self, tokens: Sequence[int], batches: Sequence[Sequence[object]]) -> None:
        """Ignore the amount of work."""

    def found(self, hits: Hits, where: str = FOUND) -> Hits:
        """Return `hits`."""
        return hits

    def ranked(self, candidates: Sequence[Sequence[Document]], ranking: Ranking) -> Ranking:
        """Return `ranking`."""
        return ranking

    def stored(self, ids: Ids) -> Ids:
        """Return `ids`."""
        return ids

    def fail(self, error: BaseException) -> None:
        """Ignore an error."""


OFF = NoSpan()


class Span:
    """An open span, and how this package describes its work in it."""

    __slots__ = ("_raw", "_tracing", "is_recording")

    def __init__(self, tracing: _Tracing, raw: trace.Span) -> None:
        self._tracing = tracing
        self._raw = raw
        self.is_recording: bool = raw.is_recording()

    @property
    def raw(self) -> trace.Span:
        """OpenTelemetry's own span."""
        return self._raw

    def set(self, **values: Any) -> None:
        """Set attributes of this package's own, ``rerank_integrations.<name>``; ``None`` sets nothing."""
        if self.is_recording:
            self._set({f"{_LIBRARY}.{name}": value for name, value in values.items()})

    def computed(self, tokens: Sequence[int], batches: Sequence[Sequence[object]]) -> None:
        """Set the tokens that were read of all texts together, and the number of texts of each batch."""
        if not self.is_recording:
            return
        total = sum(tokens)
        self._set({"llm.token_count.prompt": total, "llm.token_count.total": total})
        self.set(batch_sizes=[len(batch) for batch in batches])

    def found(self, hits: Hits, where: str = FOUND) -> Hits:
        """Set the hits of a search, those of its queries one after another, and return them."""
        if self.is_recording:
            self.set(hits=[len(of_query) for of_query in hits])
            rows = ((hit.id, hit.text, hit.score) for of_query in hits for hit in of_query)
            self._set_documents(where, rows, self._tracing.shows_outputs)
        return hits

    def ranked(self, candidates: Sequence[Sequence[Document]], ranking: Ranking) -> Ranking:
        """Set the documents that a reranking kept, best first and query by query, and return the ranking."""
        if self.is_recording:
            self.set(hits=[len(of_query) for of_query in ranking])
            rows = (
                (of_query[best.place].id, of_query[best.place].text, best.score)
                for of_query, of_ranking in zip(candidates, ranking, strict=True)
                for best in of_ranking
            )
            self._set_documents(KEPT, rows, self._tracing.shows_outputs)
        return ranking

    def stored(self, ids: Ids) -> Ids:
        """Set the number of passages that were stored, and return their ids."""
        self.set(passages=len(ids))
        return ids

    def fail(self, error: BaseException) -> None:
        """Record how the work ended: by an error, or because nobody waits for it any more, which is none."""
        if not self.is_recording:
            return
        if isinstance(error, GivenUpError | asyncio.CancelledError | KeyboardInterrupt):
            self.set(cancelled=True)
            return
        from opentelemetry.trace import Status, StatusCode

        name = type(error).__name__
        self._set({"error.type": name})
        if self._tracing.shows_inputs and self._tracing.shows_outputs:
            self._raw.record_exception(error)
            self._raw.set_status(Status(StatusCode.ERROR, _valid(f"{name}: {error}")))
        else:
            # A message may quote the beginning of a text.
            self._raw.add_event("exception", {"exception.type": name})
            self._raw.set_status(Status(StatusCode.ERROR, name))

    def set_queries(self, queries: Sequence[str], *names: str) -> None:
        """Set the queries under `names`: one as it is, the first ones of several as a JSON list."""
        if not self.is_recording:
            return
        several = list(queries[: self._tracing.max_documents])
        value = queries[0] if len(queries) == 1 else json.dumps(several, ensure_ascii=False)
        shown = _valid(value) if self._tracing.shows_inputs else _HIDDEN
        self._set(dict.fromkeys(names, shown))
        self._set({"input.mime_type": "text/plain" if len(queries) == 1 else "application/json"})
        self.set(queries=len(queries))

    def set_candidates(self, candidates: Sequence[Sequence[Document]]) -> None:
        """Set the documents that a reranking was given, those of its queries one after another."""
        if self.is_recording:
            self.set(candidates=[len(of_query) for of_query in candidates])
            rows = ((item.id, item.text, item.score) for of_query in candidates for item in of_query)
            self._set_documents(GIVEN, rows, self._tracing.shows_inputs)

    def set_texts(self, texts: Sequence[str]) -> None:
        """Set the texts that are encoded; their vectors are never shown."""
        if self.is_recording:
            self.set(texts=len(texts))
            shown = self._tracing.shows_inputs
            for number, text in enumerate(texts[: self._tracing.max_documents]):
                name = f"embedding.embeddings.{number}.embedding.text"
                self._set({name: _valid(text) if shown else _HIDDEN})

    def set_model(self, name: str, model: object) -> None:
        """Set the name of a model under `name`."""
        if self.is_recording:
            self._set({name: str(getattr(model, "name", type(model).__name__))})

    def set_top_k(self, top_k: int | None) -> None:
        """Set how many documents a reranking keeps at most, unless it keeps all."""
        if self.is_recording:
            self._set({"reranker.top_k": top_k})

    def _set(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._raw.set_attribute(name, value)

    def _set_documents(self, prefix: str, rows: Iterable[tuple[str | None, str, float | None]], shown: bool) -> None:
        for number, (passage_id, text, score) in enumerate(itertools.islice(rows, self._tracing.max_documents)):
            self._set(
                {
                    f"{prefix}.{number}.document.id": None if passage_id is None else _valid(str(passage_id)),
                    f"{prefix}.{number}.document.content": _valid(text) if shown else _HIDDEN,
                    f"{prefix}.{number}.document.score": None if score is None else float(score),
                }
            )


AnySpan: TypeAlias = "Span | NoSpan"


@dataclasses.dataclass(frozen=True)
class _Tracing:
    """What spans are made with while telemetry is on."""

    tracer: OITracer
    provider: trace.TracerProvider | None
    config: TraceConfig
    max_documents: int

    @property
    def shows_inputs(self) -> bool:
        return not (self.config.hide_inputs or self.config.hide_input_text)

    @property
    def shows_outputs(self) -> bool:
        return not (self.config.hide_outputs or self.config.hide_output_text)

    @contextlib.contextmanager
    def span(self, name: str, kind: Kind, **options: Any) -> Iterator[Span]:
        from opentelemetry.trace import use_span

        raw = self.tracer.start_span(name, openinference_span_kind=kind, **options)
        span = Span(self, raw)
        with use_span(raw, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                span.fail(error)
                raise


_tracing: _Tracing | None = None


def enable(
    tracer_provider: trace.TracerProvider | None = None,
    config: TraceConfig | None = None,
    *,
    max_documents: int = _MAX_DOCUMENTS,
) -> None:
    """Emit spans from now on, in every thread; a second call replaces the options of the first.

    Nothing is exported unless the application has configured OpenTelemetry.

    Parameters
    ----------
    tracer_provider
        The provider of the application; by default the global one, which may also be set later.
    config
        OpenInference's ``TraceConfig``, which says what is hidden; by default that of the environment variables
        ``OPENINFERENCE_HIDE_…``.
    max_documents
        How many documents of a search or a reranking, and how many texts of an encoding, a span shows. With more than
        16, raise ``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`` too: the SDK drops the oldest of more than 128 attributes.

    Raises
    ------
    MissingExtraError
        If OpenTelemetry or OpenInference is not installed (extra ``[telemetry]``).
    InvalidInputError
        For a `config` or a `max_documents` of a wrong kind, or a variable ``OPENINFERENCE_HIDE_…`` that is neither
        ``true`` nor ``false``, which OpenInference would take as a wish to show everything.
    """
    global _tracing
    try:
        from openinference.instrumentation import OITracer, TraceConfig
        from opentelemetry import trace
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError("telemetry", "telemetry") from error

    limit = whole_number(max_documents, "max_documents")
    if config is None:
        _require_switches(TraceConfig)
        config = TraceConfig()
    elif not isinstance(config, TraceConfig):
        raise InvalidInputError(f"config is of type {type(config).__name__}; expected OpenInference's TraceConfig")
    # The package itself is imported before any of its modules, and the core does not import it.
    version: str = sys.modules[_LIBRARY].__version__
    tracer = trace.get_tracer(_LIBRARY, version, tracer_provider)
    _tracing = _Tracing(OITracer(tracer, config), tracer_provider, config, limit)


def disable() -> None:
    """Emit no further spans; those that are open end as usual."""
    global _tracing
    _tracing = None


def is_enabled() -> bool:
    """Return whether `enable` was called, and `disable` not since."""
    return _tracing is not None


def provider() -> trace.TracerProvider | None:
    """Return the provider that `enable` was given; ``None`` for the global one."""
    return None if _tracing is None else _tracing.provider


def hides_inputs() -> bool:
    """Return whether spans must not show what clients send."""
    return _tracing is not None and not _tracing.shows_inputs


def retrieving(name: str, queries: Sequence[str], k: int, source: object) -> AbstractContextManager[AnySpan]:
    """Open a span of a search.

    Parameters
    ----------
    name
        The span's name.
    queries
        Its texts; none for a query that was encoded before.
    k
        Hits per query.
    source
        The path of the index, of which the span shows the last part.
    """
    return OFF if _tracing is None else _retrieving(_tracing, name, queries, k, source)


@contextlib.contextmanager
def _retrieving(tracing: _Tracing, name: str, queries: Sequence[str], k: int, source: object) -> Iterator[Span]:
    with tracing.span(name, "retriever") as span:
        if queries:
            span.set_queries(queries, "input.value")
        span.set(k=k if isinstance(k, int) else None, index=os.path.basename(str(source)))  # noqa: PTH119
        yield span


def encoding(model: object, task: Task, texts: Sequence[str]) -> AbstractContextManager[AnySpan]:
    """Open a span of an encoder's work."""
    return OFF if _tracing is None else _encoding(_tracing, model, task, texts)


@contextlib.contextmanager
def _encoding(tracing: _Tracing, model: object, task: Task, texts: Sequence[str]) -> Iterator[Span]:
    method = "encode_queries" if task == "query" else "encode_documents"
    with tracing.span(f"{type(model).__name__}.{method}", "embedding") as span:
        span.set_model("embedding.model_name", model)
        span.set_texts(texts)
        span.set(task=task)
        yield span


def encoding_by_other(model: object, task: Task, texts: Sequence[str]) -> AbstractContextManager[AnySpan]:
    """Do as `encoding` for a user's own encoder, and nothing for one that opens a span by itself."""
    return OFF if _tracing is None or hasattr(type(model), "opens_spans") else encoding(model, task, texts)


def reranking(
    name: str, queries: Sequence[str], candidates: Sequence[Sequence[Document]], model: object, top_k: int | None
) -> AbstractContextManager[AnySpan]:
    """Open a span of a reranking.

    Parameters
    ----------
    name
        The span's name.
    queries, candidates
        Each query, with candidates of its own.
    model
        What has the model's name, or is named by its class.
    top_k
        How many are kept per query; ``None`` for all.
    """
    return OFF if _tracing is None else _reranking(_tracing, name, queries, candidates, model, top_k)


@contextlib.contextmanager
def _reranking(
    tracing: _Tracing,
    name: str,
    queries: Sequence[str],
    candidates: Sequence[Sequence[Document]],
    model: object,
    top_k: int | None,
) -> Iterator[Span]:
    with tracing.span(name, "reranker") as span:
        span.set_queries(queries, "input.value", "reranker.query")
        span.set_model("reranker.model_name", model)
        span.set_top_k(top_k)
        span.set_candidates(candidates)
        yield span


def scoring(model: object, pairs: int) -> AbstractContextManager[AnySpan]:
    """Open a span of a cross-encoder's work on so many (query, text) pairs; the reranking around it has the texts."""
    return OFF if _tracing is None else _scoring(_tracing, model, pairs)


@contextlib.contextmanager
def _scoring(tracing: _Tracing, model: object, pairs: int) -> Iterator[Span]:
    with tracing.span(f"{type(model).__name__}.score", "chain") as span:
        span.set_model("reranker.model_name", model)
        span.set(pairs=pairs)
        yield span


def working(name: str) -> AbstractContextManager[AnySpan]:
    """Open a span around work of several steps, which have spans of their own."""
    return OFF if _tracing is None else _tracing.span(name, "chain")


def batching(queue: str, callers: Sequence[AnySpan]) -> AbstractContextManager[AnySpan]:
    """Open a span of a batch that is computed for several callers, each of which has an open span.

    It belongs to the trace of the first caller whose trace is sampled, and it and the spans of all callers are linked
    to one another.
    """
    return OFF if _tracing is None else _batching(_tracing, queue, [item for item in callers if isinstance(item, Span)])


@contextlib.contextmanager
def _batching(tracing: _Tracing, queue: str, callers: Sequence[Span]) -> Iterator[Span]:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, set_span_in_context

    contexts = [caller.raw.get_span_context() for caller in callers]
    sampled = [caller for caller, context in zip(callers, contexts, strict=True) if context.trace_flags.sampled]
    parent = next(iter([*sampled, *callers]), None)
    # Not the context of the thread or task that computes, which belongs to nobody.
    context = Context() if parent is None else set_span_in_context(parent.raw, Context())
    links: list[Link] = [Link(caller_context) for caller_context in contexts]
    with tracing.span(f"batch {queue}", "chain", context=context, links=links) as span:
        span.set(callers=len(callers))
        for caller in callers:
            if caller.raw.is_recording():
                caller.raw.add_link(span.raw.get_span_context())
        yield span


def under(span: trace.Span) -> AbstractContextManager[object]:
    """Make another library's open span the parent of those that are opened inside."""
    from opentelemetry.trace import use_span

    return use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


def trace_ids() -> dict[str, str]:
    """Return the ids of the current trace and span for a log record, as hexadecimal digits; empty without a trace."""
    if _tracing is None:
        return {}
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def trace_headers() -> dict[str, str]:
    """Return the headers ``traceparent`` and ``tracestate`` of the current span, for a request to another service.

    Baggage, which may name users, is left out.
    """
    headers: dict[str, str] = {}
    if _tracing is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers


def _require_switches(config: type[TraceConfig]) -> None:
    """Raise `InvalidInputError` for a variable that OpenInference would not understand, and ignore."""
    for field in dataclasses.fields(config):
        variable = field.metadata.get("env_var")
        if variable is None or bool not in get_args(field.type):
            continue
        value = os.environ.get(variable)
        if value is not None and value.lower() not in ("true", "false"):
            raise InvalidInputError(f"the environment variable {variable} is {value!r}; expected true or false")


def _valid(text: str) -> str:
    """Return `text` as an exporter can write it: a lone surrogate has no UTF-8."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
