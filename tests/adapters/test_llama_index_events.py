"""Every reranking that starts ends, in both of LlamaIndex's event systems."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from corpus import QUERIES
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError, TextTooLongError
from rerank_integrations.llama_index import CascadeRerank, ColBERTRerank, ColBERTRetriever, CrossEncoderRerank

QUERY = QUERIES[0]


class Instrumentation(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012

    @classmethod
    def class_name(cls) -> str:
        return "Instrumentation"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.events.append(event)


class Callbacks(BaseCallbackHandler):
    def __init__(self) -> None:
        super().__init__([], [])
        self.events: list[tuple[str, CBEventType, str, dict[str, Any]]] = []

    def on_event_start(
        self, event_type: CBEventType, payload: Any = None, event_id: str = "", parent_id: str = "", **kwargs: Any
    ) -> str:
        self.events.append(("start", event_type, event_id, payload or {}))
        return event_id

    def on_event_end(self, event_type: CBEventType, payload: Any = None, event_id: str = "", **kwargs: Any) -> None:
        self.events.append(("end", event_type, event_id, payload or {}))

    def start_trace(self, trace_id: str | None = None) -> None:
        return None

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        return None


@pytest.fixture
def instrumentation() -> Iterator[Instrumentation]:
    handler = Instrumentation(events=[])
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def callbacks() -> Callbacks:
    return Callbacks()


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("Mars is red.", "A zip file.", "Rain.")]


class Broken:
    name = "broken"

    def score(self, query: str, texts: list[str]) -> list[float]:
        raise RuntimeError("out of order")


async def call(reranker: Any, mode: str, nodes: list[NodeWithScore], query: str | None) -> Any:
    if mode == "sync":
        return reranker.postprocess_nodes(nodes, query_str=query)
    return await reranker.apostprocess_nodes(nodes, query_str=query)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_success(
    instrumentation: Instrumentation,
    callbacks: Callbacks,
    nodes: list[NodeWithScore],
    cross_encoder: CrossEncoderModel,
    mode: str,
) -> None:
    reranker = CrossEncoderRerank(cross_encoder, top_n=2, callback_manager=CallbackManager([callbacks]))
    ranked = await call(reranker, mode, nodes, QUERY)
    start, end = instrumentation.events
    assert isinstance(start, ReRankStartEvent)
    assert (start.query.query_str, start.nodes, start.top_n) == (QUERY, nodes, 2)  # type: ignore[union-attr]
    assert start.model_name == cross_encoder.name
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == ranked
    (first, kind, started, payload), (second, other_kind, ended, result) = callbacks.events
    assert (first, second, kind, other_kind) == ("start", "end", CBEventType.RERANKING, CBEventType.RERANKING)
    assert started == ended
    assert payload[EventPayload.MODEL_NAME] == cross_encoder.name
    assert (payload[EventPayload.QUERY_STR], payload[EventPayload.TOP_K]) == (QUERY, 2)
    assert (payload[EventPayload.NODES], result[EventPayload.NODES]) == (nodes, ranked)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("case", ["no nodes", "top_n of 0", "blank query", "no query", "error", "keep all"])
async def test_balanced(
    instrumentation: Instrumentation,
    callbacks: Callbacks,
    nodes: list[NodeWithScore],
    cross_encoder: CrossEncoderModel,
    mode: str,
    case: str,
) -> None:
    reranker = CrossEncoderRerank(
        Broken() if case == "error" else cross_encoder,
        top_n={"top_n of 0": 0, "keep all": None}.get(case, 5),
        callback_manager=CallbackManager([callbacks]),
    )
    query = {"blank query": " ", "no query": None}.get(case, QUERY)
    expected = {"blank query": InvalidInputError, "no query": InvalidInputError, "error": RuntimeError}.get(case)
    argument = [] if case == "no nodes" else nodes
    ranked: list[NodeWithScore] = []
    if expected is None:
        ranked = await call(reranker, mode, argument, query)
    else:
        with pytest.raises(expected):
            await call(reranker, mode, argument, query)
    assert [type(event) for event in instrumentation.events] == [ReRankStartEvent, ReRankEndEvent]
    assert instrumentation.events[1].nodes == ranked
    assert [event[0] for event in callbacks.events] == ["start", "end"]
    failure = callbacks.events[1][3].get(EventPayload.EXCEPTION)
    assert (failure is not None) == (expected is not None)
    assert len(ranked) == (3 if case == "keep all" else 0)


async def test_concurrent_calls_stay_balanced(
    instrumentation: Instrumentation, nodes: list[NodeWithScore], cross_encoder: CrossEncoderModel
) -> None:
    reranker = CrossEncoderRerank(cross_encoder)
    await asyncio.gather(*(reranker.apostprocess_nodes(nodes, query_str=query) for query in QUERIES))
    kinds = [type(event) for event in instrumentation.events]
    assert kinds.count(ReRankStartEvent) == kinds.count(ReRankEndEvent) == len(QUERIES)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("case", "how_many"),
    [
        ("cascade", 2),
        ("cascade whose second stage fails", 3),
        ("cascade whose first stage fails", 3),
        ("cascade of a blank query", InvalidInputError),
        ("cascade without nodes", 0),
        ("windows", 3),
        ("strict", TextTooLongError),
        ("threshold that none reaches", 0),
        ("max_candidates of 0", 0),
        ("node that is none", InvalidInputError),
        ("no list", InvalidInputError),
        ("iterator", 3),
        ("option set to nonsense", InvalidInputError),
    ],
)
async def test_balanced_with_options(
    instrumentation: Instrumentation,
    callbacks: Callbacks,
    nodes: list[NodeWithScore],
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
    mode: str,
    case: str,
    how_many: int | type[Exception],
) -> None:
    options: dict[str, Any] = {"callback_manager": CallbackManager([callbacks])}
    first, second = ColBERTRerank(colbert, top_n=3), CrossEncoderRerank(cross_encoder, top_n=2)
    broken = CrossEncoderRerank(Broken())
    long = NodeWithScore(node=TextNode(text="Mars is red. " * 400))
    unset = CrossEncoderRerank(cross_encoder, **options)
    unset.window = 1
    reranker: Any = {
        "cascade whose second stage fails": lambda: CascadeRerank([first, broken], **options),
        "cascade whose first stage fails": lambda: CascadeRerank([broken, second], **options),
        "windows": lambda: ColBERTRerank(colbert, window=8, **options),
        "strict": lambda: ColBERTRerank(colbert, strict=True, **options),
        "threshold that none reaches": lambda: ColBERTRerank(colbert, score_threshold=1000.0, **options),
        "max_candidates of 0": lambda: ColBERTRerank(colbert, max_candidates=0, **options),
        "option set to nonsense": lambda: unset,
    }.get(
        case,
        lambda: CascadeRerank([first, second], **options) if "cascade" in case else ColBERTRerank(colbert, **options),
    )()
    argument: Any = {
        "cascade without nodes": [],
        "strict": [*nodes, long],
        "node that is none": [*nodes, "Mars is red."],
        "no list": 3,
        "iterator": iter(nodes),
    }.get(case, nodes)
    ranked: list[NodeWithScore] = []
    if isinstance(how_many, int):
        ranked = await call(reranker, mode, argument, QUERY)
        assert len(ranked) == how_many
    else:
        with pytest.raises(how_many):
            await call(reranker, mode, argument, " " if "blank" in case else QUERY)
    start, end = instrumentation.events
    assert isinstance(start, ReRankStartEvent)
    assert start.model_name == reranker._model_name()
    # What was given, as far as it was nodes.
    assert start.nodes == {"no list": [], "cascade without nodes": [], "strict": [*nodes, long]}.get(case, nodes)
    assert isinstance(end, ReRankEndEvent)
    assert end.nodes == ranked
    # One pair for a cascade too: its stages are not components that a caller asked.
    assert [event[0] for event in callbacks.events] == ["start", "end"]
    assert (EventPayload.EXCEPTION in callbacks.events[1][3]) == (not isinstance(how_many, int))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("where", ["start", "end"])
async def test_balanced_when_a_callback_raises(
    instrumentation: Instrumentation,
    nodes: list[NodeWithScore],
    cross_encoder: CrossEncoderModel,
    mode: str,
    where: str,
) -> None:
    class Raising(Callbacks):
        def on_event_start(self, *args: Any, **kwargs: Any) -> str:
            if where == "start":
                raise RuntimeError("no start")
            return super().on_event_start(*args, **kwargs)

        def on_event_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_event_end(*args, **kwargs)
            raise RuntimeError("no end")

    handler = Raising()
    stage = CrossEncoderRerank(cross_encoder)
    reranker = CascadeRerank([stage], callback_manager=CallbackManager([handler]))
    with pytest.raises(RuntimeError, match=f"no {where}"):
        await call(reranker, mode, nodes, QUERY)
    assert [type(event) for event in instrumentation.events] == [ReRankStartEvent, ReRankEndEvent]
    assert [event[0] for event in handler.events] == ([] if where == "start" else ["start", "end"])


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_balanced_when_an_event_handler_raises(
    callbacks: Callbacks, nodes: list[NodeWithScore], cross_encoder: CrossEncoderModel, mode: str
) -> None:
    class Raising(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Raising"

        def handle(self, event: Any, **kwargs: Any) -> None:
            raise RuntimeError("no event")

    handler = Raising()
    get_dispatcher().add_event_handler(handler)
    try:
        reranker = CrossEncoderRerank(cross_encoder, callback_manager=CallbackManager([callbacks]))
        assert len(await call(reranker, mode, nodes, QUERY)) == 3
    finally:
        get_dispatcher().event_handlers.remove(handler)
    assert [event[0] for event in callbacks.events] == ["start", "end"]


async def test_balanced_when_the_caller_gives_up(
    instrumentation: Instrumentation, callbacks: Callbacks, nodes: list[NodeWithScore]
) -> None:
    entered, may = threading.Event(), threading.Event()

    class Waiting:
        def score(self, query: str, texts: list[str]) -> list[float]:
            entered.set()
            assert may.wait(30)
            return [0.0 for _ in texts]

    reranker = CrossEncoderRerank(Waiting(), callback_manager=CallbackManager([callbacks]))
    task = asyncio.ensure_future(reranker.apostprocess_nodes(nodes, query_str=QUERY))
    assert await asyncio.to_thread(entered.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may.set()
    # The work stops before its next batch, and ends with it.
    for _ in range(3000):
        if len(instrumentation.events) == 2:
            break
        await asyncio.sleep(0.01)
    assert [type(event) for event in instrumentation.events] == [ReRankStartEvent, ReRankEndEvent]
    assert [event[0] for event in callbacks.events] == ["start", "end"]


class Spans(BaseSpanHandler[BaseSpan]):
    """The names of all spans, each under that of its parent, and how they ended."""

    _entered: list[tuple[str, str | None]] = PrivateAttr(default_factory=list)
    _ended: list[tuple[str, str]] = PrivateAttr(default_factory=list)

    def new_span(self, id_: str, *args: Any, parent_span_id: str | None = None, **kwargs: Any) -> None:
        self._entered.append((_name(id_), parent_span_id and _name(parent_span_id)))

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self._ended.append((_name(id_), "exit"))

    def prepare_to_drop_span(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self._ended.append((_name(id_), "drop"))


def _name(span_id: str) -> str:
    """Return the name of a span without its UUID, and the method's without the ``a`` of an async one."""
    kind, method = span_id[:-37].split(".")
    return f"{kind}.{method.replace('_a', '_')}" if method.startswith("_a") else f"{kind}.{method.removeprefix('a')}"


@pytest.fixture
def spans() -> Iterator[Spans]:
    handler = Spans()
    root = get_dispatcher()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


@pytest.mark.parametrize("kind", ["ColBERTRerank", "CrossEncoderRerank", "CascadeRerank"])
@pytest.mark.parametrize("fails", [False, True])
async def test_async_has_the_spans_of_sync(
    spans: Spans,
    instrumentation: Instrumentation,
    index: ColBERTIndex,
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
    kind: str,
    fails: bool,
) -> None:
    stages = [ColBERTRerank(colbert, top_n=3), CrossEncoderRerank(cross_encoder, top_n=2)]
    reranker: Any = {
        "ColBERTRerank": stages[0],
        "CrossEncoderRerank": stages[1],
        "CascadeRerank": CascadeRerank(stages),
    }[kind]
    if fails:
        reranker = CrossEncoderRerank(Broken())
        kind = "CrossEncoderRerank"
    engine = RetrieverQueryEngine.from_args(
        ColBERTRetriever(index, similarity_top_k=4), llm=MockLLM(), node_postprocessors=[reranker]
    )
    seen = []
    for mode in ("sync", "async"):
        with pytest.raises(RuntimeError) if fails else nullcontext():
            if mode == "sync":
                engine.query(QUERY)
            else:
                await engine.aquery(QUERY)
        ours = ("ColBERT", "CrossEncoder", "Cascade")
        entered = {(name, parent) for name, parent in spans._entered if name.startswith(ours)}
        ended = {(name, how) for name, how in spans._ended if name.startswith(ours)}
        seen.append((entered, ended, {_name(event.span_id) for event in instrumentation.events}))
        spans._entered.clear()
        spans._ended.clear()
        instrumentation.events.clear()
    assert seen[0] == seen[1]
    entered, ended, of_events = seen[1]
    assert of_events == {f"{kind}._postprocess_nodes"}
    assert (f"{kind}._postprocess_nodes", "RetrieverQueryEngine._query") in entered
    assert ("ColBERTRetriever._retrieve", "ColBERTRetriever.retrieve") in entered
    assert (f"{kind}._postprocess_nodes", "drop" if fails else "exit") in ended
