"""Spans of the library: names, attributes, parents, errors, hidden texts, and nothing at all while it is off."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")

from interpreter import run, without
from openinference.instrumentation import TraceConfig, using_session
from openinference.semconv.trace import (
    DocumentAttributes,
    EmbeddingAttributes,
    OpenInferenceSpanKindValues,
    RerankerAttributes,
    SpanAttributes,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id
from reranking_services import reranking_service
from spans import Spans, attributes, collected
from toy import ToyEncoder

from rerank_integrations import (
    Candidate,
    Cascade,
    ColBERTIndex,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    InvalidInputError,
    Passage,
    PlainScorer,
    RemoteReranker,
    Reranker,
    rerank,
    telemetry,
)
from rerank_integrations.core import telemetry as core
from rerank_integrations.core.concurrency.cancel import GivenUpError, check_wanted

PASSAGES = [
    Passage("solar", "solar panels make electricity from light"),
    Passage("river", "the river rose after the rain"),
    Passage("zip", "a zip file is read without extracting it"),
]
QUERY = "electricity from light"


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as made:
        yield made


@pytest.fixture
def index() -> Iterator[ColBERTIndex]:
    with ColBERTIndex.create(None, ToyEncoder()) as made:
        made.upsert(PASSAGES, show_progress=False)
        yield made


class WordScorer:
    name = "words"

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        words = set(query.split())
        return [float(len(words & set(text.split()))) for text in texts]


def documents(span_attributes: dict[str, object], prefix: str) -> list[tuple[object, object, object]]:
    rows = []
    while f"{prefix}.{len(rows)}.{DocumentAttributes.DOCUMENT_CONTENT}" in span_attributes:
        names = (
            DocumentAttributes.DOCUMENT_ID,
            DocumentAttributes.DOCUMENT_CONTENT,
            DocumentAttributes.DOCUMENT_SCORE,
        )
        rows.append(tuple(span_attributes.get(f"{prefix}.{len(rows)}.{name}") for name in names))
    return rows  # type: ignore[return-value]


def test_a_search_is_a_retriever_span_with_its_hits(index: ColBERTIndex, spans: Spans) -> None:
    hits = index.search(QUERY, 2)
    assert spans.tree() == ["ColBERTIndex.search", "ColBERTIndex.search > ToyEncoder.encode_queries"]
    shown = attributes(spans.one("ColBERTIndex.search"))
    assert shown[SpanAttributes.OPENINFERENCE_SPAN_KIND] == OpenInferenceSpanKindValues.RETRIEVER.value
    assert shown[SpanAttributes.INPUT_VALUE] == QUERY
    assert shown[SpanAttributes.INPUT_MIME_TYPE] == "text/plain"
    assert shown["rerank_integrations.k"] == 2
    assert documents(shown, SpanAttributes.RETRIEVAL_DOCUMENTS) == [(hit.id, hit.text, hit.score) for hit in hits]
    encoded = attributes(spans.one("ToyEncoder.encode_queries"))
    assert encoded[SpanAttributes.OPENINFERENCE_SPAN_KIND] == OpenInferenceSpanKindValues.EMBEDDING.value
    assert encoded[SpanAttributes.EMBEDDING_MODEL_NAME] == "toy"
    text = f"{SpanAttributes.EMBEDDING_EMBEDDINGS}.0.{EmbeddingAttributes.EMBEDDING_TEXT}"
    assert encoded[text] == QUERY


def test_several_queries_are_one_span(index: ColBERTIndex, spans: Spans) -> None:
    per_query = index.search_many([QUERY, "rain"], 1)
    shown = attributes(spans.one("ColBERTIndex.search_many"))
    assert json.loads(shown[SpanAttributes.INPUT_VALUE]) == [QUERY, "rain"]
    assert shown[SpanAttributes.INPUT_MIME_TYPE] == "application/json"
    assert shown["rerank_integrations.hits"] == (1, 1)
    expected = [(hit.id, hit.text, hit.score) for hits in per_query for hit in hits]
    assert documents(shown, SpanAttributes.RETRIEVAL_DOCUMENTS) == expected


def test_a_search_by_vectors_and_a_ranking_of_stored_passages(index: ColBERTIndex, spans: Spans) -> None:
    hits = index.search_encoded(index.encode_query(QUERY), 1)
    shown = attributes(spans.one("ColBERTIndex.search_encoded"))
    assert SpanAttributes.INPUT_VALUE not in shown
    assert documents(shown, SpanAttributes.RETRIEVAL_DOCUMENTS) == [(hit.id, hit.text, hit.score) for hit in hits]
    ranked = index.rerank(QUERY, ["zip", "solar"])
    shown = attributes(spans.one("ColBERTIndex.rerank"))
    assert shown[SpanAttributes.OPENINFERENCE_SPAN_KIND] == OpenInferenceSpanKindValues.RERANKER.value
    assert shown[RerankerAttributes.RERANKER_QUERY] == QUERY
    expected = [(hit.id, hit.text, hit.score) for hit in ranked]
    assert documents(shown, RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS) == expected


def test_an_upsert_has_its_encodings_below_it(spans: Spans) -> None:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert((f"text number {number}" for number in range(300)), show_progress=False)
    above = "ColBERTIndex.upsert"
    assert spans.tree() == [above, *[f"{above} > ToyEncoder.encode_documents"] * 2]
    assert attributes(spans.one(above))["rerank_integrations.passages"] == 300


def test_a_models_span_has_tokens_batches_and_device(colbert: ColBERTModel, spans: Spans) -> None:
    texts = ["one two three", "a much longer text than the other, of many words", "one two three"]
    colbert.encode_documents(texts)
    shown = attributes(spans.one("ColBERTModel.encode_documents"))
    assert shown[SpanAttributes.EMBEDDING_MODEL_NAME] == colbert.name
    assert shown[SpanAttributes.LLM_TOKEN_COUNT_PROMPT] == sum(colbert.token_counts(texts[:2]))
    # Equal texts are encoded once.
    assert sum(shown["rerank_integrations.batch_sizes"]) == shown["rerank_integrations.texts"] == 2
    assert shown["rerank_integrations.device"] == "cpu"
    assert shown["rerank_integrations.dtype"] in ("float32", "bfloat16")
    assert shown["rerank_integrations.task"] == "document"
    assert not [name for name in shown if EmbeddingAttributes.EMBEDDING_VECTOR in name]


def test_a_reranking_has_its_documents_and_the_models_work_below_it(
    cross_encoder: CrossEncoderModel, spans: Spans
) -> None:
    hits = rerank(QUERY, PASSAGES, cross_encoder, top_n=2)
    assert spans.tree() == ["Reranker.rank", "Reranker.rank > CrossEncoderModel.score"]
    shown = attributes(spans.one("Reranker.rank"))
    assert shown[SpanAttributes.OPENINFERENCE_SPAN_KIND] == OpenInferenceSpanKindValues.RERANKER.value
    assert shown[RerankerAttributes.RERANKER_QUERY] == shown[SpanAttributes.INPUT_VALUE] == QUERY
    assert shown[RerankerAttributes.RERANKER_MODEL_NAME] == cross_encoder.name
    assert shown[RerankerAttributes.RERANKER_TOP_K] == 2
    given = documents(shown, RerankerAttributes.RERANKER_INPUT_DOCUMENTS)
    assert given == [(passage.id, passage.text, None) for passage in PASSAGES]
    kept = documents(shown, RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS)
    assert kept == [(hit.id, hit.text, hit.score) for hit in hits]
    scored = attributes(spans.one("CrossEncoderModel.score"))
    assert scored["rerank_integrations.pairs"] == 3
    assert scored[SpanAttributes.LLM_TOKEN_COUNT_PROMPT] > 0
    assert documents(scored, RerankerAttributes.RERANKER_INPUT_DOCUMENTS) == []


def test_the_score_of_the_retriever_is_that_of_the_input_document(index: ColBERTIndex, spans: Spans) -> None:
    hits = index.search(QUERY)
    rerank(QUERY, hits, WordScorer())
    given = documents(attributes(spans.one("Reranker.rank")), RerankerAttributes.RERANKER_INPUT_DOCUMENTS)
    assert given == [(hit.id, hit.text, hit.score) for hit in hits]


@pytest.mark.parametrize("time_budget", [None, 600.0], ids=["in the caller's thread", "in a thread of its own"])
def test_the_stages_of_a_cascade_are_its_children(time_budget: float | None, spans: Spans) -> None:
    stages = [
        ("colbert", Reranker(ColBERTScorer(ToyEncoder()), top_n=2)),
        ("words", Reranker(PlainScorer(WordScorer()), top_n=1)),
    ]
    hits = rerank(QUERY, PASSAGES, Cascade(stages, time_budget=time_budget))
    above = "Cascade.rank"
    assert spans.tree() == [
        above,
        f"{above} > Reranker.rank",
        f"{above} > Reranker.rank > ToyEncoder.encode_queries",
        f"{above} > Reranker.rank > ToyEncoder.encode_documents",
        f"{above} > Reranker.rank",
    ]
    shown = attributes(spans.one(above))
    assert shown[RerankerAttributes.RERANKER_MODEL_NAME] == "toy > words"
    kept = documents(shown, RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS)
    assert kept == [(hit.id, hit.text, hit.score) for hit in hits]
    names = [attributes(span)[RerankerAttributes.RERANKER_MODEL_NAME] for span in spans.named("Reranker.rank")]
    assert names == ["toy", "words"]


class Waiting:
    """Scorer that works until nobody waits for it."""

    def __init__(self) -> None:
        self.started = threading.Event()

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        self.started.set()
        while True:
            check_wanted()
            threading.Event().wait(0.005)


def wait_for(spans: Spans, name: str) -> None:
    while not spans.named(name):
        threading.Event().wait(0.005)


def test_a_stage_out_of_time_ends_its_span_and_the_cascade_says_where(spans: Spans) -> None:
    cascade = Cascade([("slow", Reranker(PlainScorer(Waiting())))], time_budget=0.05)
    cascade.rank(QUERY, [Candidate("a", "text")])
    assert attributes(spans.one("Cascade.rank"))["rerank_integrations.stopped_at"] == "slow"
    wait_for(spans, "Reranker.rank")
    stage = spans.one("Reranker.rank")
    assert attributes(stage)["rerank_integrations.cancelled"] is True
    assert stage.status.status_code is StatusCode.UNSET
    assert spans.tree() == ["Cascade.rank", "Cascade.rank > Reranker.rank"]


async def test_asynchronous_work_is_below_the_callers_span_and_a_cancelled_one_ends(spans: Spans) -> None:
    reranker = Reranker(PlainScorer(WordScorer()))
    with spans.tracer.start_as_current_span("application"):
        await asyncio.gather(*(reranker.arank_many([QUERY], [[Candidate("a", "light")]]) for _ in range(5)))
    assert spans.tree() == ["application", *["application > Reranker.rank"] * 5]
    waiting = Waiting()
    task = asyncio.create_task(Reranker(PlainScorer(waiting)).arank_many(["cancelled"], [[Candidate("a", "light")]]))
    await asyncio.to_thread(waiting.started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while len(spans.named("Reranker.rank")) < 6:
        await asyncio.sleep(0.005)
    cancelled = spans.named("Reranker.rank")[-1]
    assert attributes(cancelled)["rerank_integrations.cancelled"] is True


def test_work_of_many_threads_stays_in_its_own_traces(index: ColBERTIndex, spans: Spans) -> None:
    def work(number: int) -> None:
        with spans.tracer.start_as_current_span("application"):
            rerank(f"{QUERY} {number}", index.search(f"{QUERY} {number}"), ColBERTScorer(index.model, index))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert len(spans.named("application")) == 24
    for root in spans.named("application"):
        trace = [span for span in spans.all if span.context.trace_id == root.context.trace_id]
        queries = {value for span in trace if (value := attributes(span).get(SpanAttributes.INPUT_VALUE))}
        assert len(queries) == 1
        assert sorted(span.name for span in trace) == [
            "ColBERTIndex.search",
            "Reranker.rank",
            *["ToyEncoder.encode_queries"] * 2,
            "application",
        ]


class Broken:
    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        raise RuntimeError(f"cannot score {query}")


def test_an_error_is_recorded_and_passed_on(spans: Spans) -> None:
    with pytest.raises(RuntimeError):
        rerank(QUERY, PASSAGES, Broken())
    span = spans.one("Reranker.rank")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == f"RuntimeError: cannot score {QUERY}"
    assert attributes(span)["error.type"] == "RuntimeError"
    assert [event.name for event in span.events] == ["exception"]


def do_everything(index: ColBERTIndex) -> None:
    hits = index.search(QUERY)
    index.search_many([QUERY, "rain"])
    index.upsert([Passage("new", "a stored secret")], show_progress=False)
    index.rerank(QUERY, ["zip", "solar"])
    rerank(QUERY, hits, Cascade([("colbert", Reranker(ColBERTScorer(ToyEncoder())))]))
    with pytest.raises(RuntimeError):
        rerank(QUERY, PASSAGES, Broken())
    # So that a second call does the same.
    index.delete(["new"])


SECRETS = {"query": QUERY, "passage": "electricity", "stored": "secret", "other query": '"rain'}


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("OPENINFERENCE_HIDE_INPUTS", "OPENINFERENCE_HIDE_OUTPUTS"),
        ("OPENINFERENCE_HIDE_INPUT_TEXT", "OPENINFERENCE_HIDE_OUTPUT_TEXT"),
    ],
    ids=["inputs and outputs", "their texts"],
)
def test_no_text_is_anywhere_when_it_is_hidden(
    index: ColBERTIndex, inputs: str, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collected() as shown:
        do_everything(index)
    assert [name for name, text in SECRETS.items() if text not in shown.texts().replace('\\"', '"')] == []
    monkeypatch.setenv(inputs, "true")
    monkeypatch.setenv(outputs, "True")
    with collected() as hidden:
        do_everything(index)
    assert [name for name, text in SECRETS.items() if text in hidden.texts().replace('\\"', '"')] == []
    assert hidden.tree() == shown.tree()
    # What remains says enough to find a problem.
    span = hidden.named("ColBERTIndex.search")[0]
    assert attributes(span)[SpanAttributes.INPUT_VALUE] == "__REDACTED__"
    found = documents(attributes(span), SpanAttributes.RETRIEVAL_DOCUMENTS)
    assert [(row[0], row[1]) for row in found] == [(passage_id, "__REDACTED__") for passage_id, _, _ in found]
    assert {"solar", "river", "zip"} == {row[0] for row in found}
    assert hidden.named("Reranker.rank")[-1].status.description == "RuntimeError"


def test_inputs_alone_are_hidden(index: ColBERTIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    with collected() as spans:
        index.search(QUERY, 1)
    assert QUERY not in spans.texts().replace("solar panels make electricity from light", "")
    shown = attributes(spans.one("ColBERTIndex.search"))
    assert documents(shown, SpanAttributes.RETRIEVAL_DOCUMENTS)[0][1] == PASSAGES[0].text


def test_a_configuration_in_code_goes_before_the_environment(
    index: ColBERTIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "false")
    with collected() as spans:
        telemetry.enable(spans.provider, TraceConfig(hide_inputs=True))
        index.search(QUERY, 1)
    assert attributes(spans.one("ColBERTIndex.search"))[SpanAttributes.INPUT_VALUE] == "__REDACTED__"


def test_a_switch_that_openinference_would_ignore_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "1")
    with pytest.raises(InvalidInputError, match="OPENINFERENCE_HIDE_INPUTS is '1'; expected true or false"):
        telemetry.enable()
    assert not telemetry.is_enabled()


@pytest.mark.parametrize("options", [{"config": {}}, {"max_documents": -1}], ids=["config", "max_documents"])
def test_options_of_a_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(options))} is"):
        telemetry.enable(**options)  # type: ignore[arg-type]


def test_many_documents_do_not_displace_the_other_attributes(spans: Spans) -> None:
    passages = [Passage(f"p{number}", f"light number {number}") for number in range(100)]
    rerank(QUERY, passages, WordScorer())
    span = spans.one("Reranker.rank")
    assert span.dropped_attributes == 0
    shown = attributes(span)
    assert shown[SpanAttributes.OPENINFERENCE_SPAN_KIND] == OpenInferenceSpanKindValues.RERANKER.value
    assert shown["rerank_integrations.candidates"] == shown["rerank_integrations.hits"] == (100,)
    assert len(documents(shown, RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS)) == 16
    with collected(max_documents=3) as fewer:
        rerank(QUERY, passages, WordScorer())
    given = documents(attributes(fewer.one("Reranker.rank")), RerankerAttributes.RERANKER_INPUT_DOCUMENTS)
    assert [row[0] for row in given] == ["p0", "p1", "p2"]


def test_a_lone_surrogate_can_be_exported(spans: Spans) -> None:
    rerank(QUERY, [Passage("a", "half of a pair: \ud800")], WordScorer())
    content = documents(attributes(spans.one("Reranker.rank")), RerankerAttributes.RERANKER_OUTPUT_DOCUMENTS)[0][1]
    assert content == "half of a pair: ?"


def test_what_openinference_puts_into_the_context_is_on_our_spans(index: ColBERTIndex, spans: Spans) -> None:
    with using_session("session 7"):
        index.search(QUERY)
    assert {attributes(span).get(SpanAttributes.SESSION_ID) for span in spans.all} == {"session 7"}


def test_names_of_gen_ai_on_demand(index: ColBERTIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENINFERENCE_ENABLE_GENAI_SEMCONV", "true")
    with collected() as spans:
        index.search(QUERY)
    assert attributes(spans.one("ColBERTIndex.search"))["gen_ai.operation.name"] == "retrieval"
    assert attributes(spans.one("ToyEncoder.encode_queries"))["gen_ai.operation.name"] == "embeddings"


def test_a_trace_that_is_not_sampled_has_no_spans_and_changes_nothing(index: ColBERTIndex) -> None:
    expected = index.search(QUERY)
    with collected(sampler=ALWAYS_OFF) as spans:
        assert index.search(QUERY) == expected
        with pytest.raises(RuntimeError):
            rerank(QUERY, PASSAGES, Broken())
    assert spans.all == []


def test_a_work_that_was_given_up_raises_as_before(spans: Spans) -> None:
    class GivenUp:
        def score(self, query: str, texts: Sequence[str]) -> list[float]:
            raise GivenUpError("gone")

    with pytest.raises(GivenUpError):
        rerank(QUERY, PASSAGES, Cascade([("gone", Reranker(PlainScorer(GivenUp())))]))
    assert [attributes(span)["rerank_integrations.cancelled"] for span in spans.all] == [True, True]


def test_a_request_to_a_remote_reranker_names_its_span(spans: Spans) -> None:
    pytest.importorskip("httpx")
    with reranking_service() as service, RemoteReranker(service.address) as remote:
        rerank(QUERY, PASSAGES, remote)
        telemetry.disable()
        rerank(QUERY, PASSAGES, remote)
    traced, untraced = ({name.lower(): value for name, value in item.headers.items()} for item in service.requests)
    context = spans.one("Reranker.rank").context
    assert traced["traceparent"] == f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-01"
    assert "traceparent" not in untraced


USE = """
import sys
from rerank_integrations import Cascade, ColBERTIndex, ColBERTScorer, Reranker, rerank, telemetry
from toy import ToyEncoder
def use():
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        index.upsert(["one text", "another"], show_progress=False)
        rerank("text", index.search("text"), Cascade([("a", Reranker(ColBERTScorer(ToyEncoder())))]))
"""
PATHS = f"import sys; sys.path[:0] = {[path for path in __import__('sys').path if path]!r}\n"


def test_while_it_is_off_every_opener_returns_the_same_object() -> None:
    assert not telemetry.is_enabled()
    opened = [
        core.retrieving("a search", [QUERY], 10, "path"),
        core.encoding(ToyEncoder(), "query", [QUERY]),
        core.encoding_by_other(ToyEncoder(), "query", [QUERY]),
        core.reranking("a reranking", [QUERY], [PASSAGES], WordScorer(), None),  # type: ignore[list-item]
        core.scoring(ToyEncoder(), 3),
        core.working("work"),
        core.batching("queue", [core.OFF]),
    ]
    assert all(span is core.OFF for span in opened)
    assert core.trace_ids() == core.trace_headers() == {}


def test_off_by_default_and_opentelemetry_is_not_imported() -> None:
    code = PATHS + USE + "use(); print([name for name in sys.modules if name.startswith(('opentelemetry', 'openinf'))])"
    assert run(code) == "[]"


def test_a_provider_alone_does_not_turn_it_on() -> None:
    setup = """
from spans import Spans
from opentelemetry import trace
spans = Spans()
trace.set_tracer_provider(spans.provider)
use(); print(len(spans.all))
telemetry.enable(); use(); print(sorted({span.name for span in spans.all}))
telemetry.disable(); before = len(spans.all); use(); print(len(spans.all) - before)
"""
    names = ["Cascade.rank", "ColBERTIndex.search", "ColBERTIndex.upsert", "Reranker.rank"]
    names += ["ToyEncoder.encode_documents", "ToyEncoder.encode_queries"]
    assert run(PATHS + USE + setup).splitlines() == ["0", str(names), "0"]


def test_the_global_provider_may_be_set_after_it_was_enabled() -> None:
    setup = """
from spans import Spans
from opentelemetry import trace
telemetry.enable(); use()
spans = Spans()
trace.set_tracer_provider(spans.provider)
use(); print(len(spans.all))
"""
    assert run(PATHS + USE + setup) == "8"


@pytest.mark.parametrize("package", ["opentelemetry", "openinference"])
def test_without_the_extra_it_names_the_command(package: str) -> None:
    code = (
        PATHS
        + without(package)
        + USE
        + """
use()
try:
    telemetry.enable()
except Exception as error:
    print(type(error).__name__, error)
"""
    )
    assert run(code) == "MissingExtraError telemetry needs an extra: pip install 'rerank-integrations[telemetry]'"
