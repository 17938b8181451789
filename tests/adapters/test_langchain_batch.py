"""``RerankingRetriever.batch``: the results and traces of single calls, with the candidates scored together."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from corpus import QUERIES
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import PrivateAttr
from runs_langchain import Recorder

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    RerankingRetriever,
)

SOME = [*QUERIES[:3], " ", QUERIES[0], ""]


class CountingModel(CrossEncoderModel):
    """Counts its calls."""

    calls = 0

    def score_pairs(self, pairs: Any) -> Any:
        self.calls += 1
        return super().score_pairs(pairs)


class Picky:
    """Fails for one query."""

    name = "picky"

    def score(self, query: str, texts: list[str]) -> list[float]:
        if query == QUERIES[1]:
            raise RuntimeError("not this one")
        return [float(len(text)) for text in texts]


class Reverse(BaseDocumentCompressor):
    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        return list(documents)[::-1]


class Shouting(CrossEncoderRerank):
    """A user's own way of compressing, on top of this package's."""

    def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> list[Document]:
        ranked = super().compress_documents(documents, query, callbacks)
        return [Document(document.page_content.upper()) for document in ranked]


@pytest.fixture
def base(index: ColBERTIndex) -> ColBERTRetriever:
    return ColBERTRetriever(index=index, k=5)


@pytest.fixture(params=["colbert", "stored vectors", "windows", "cross-encoder", "cascade"])
def compressor(
    request: pytest.FixtureRequest, index: ColBERTIndex, colbert: ColBERTModel, cross_encoder: CrossEncoderModel
) -> Any:
    # Without a cache, or the second asking would say where its vectors are from.
    by_colbert = ColBERTRerank(model=colbert, top_n=4, cache_bytes=0)
    by_reader = CrossEncoderRerank(model=cross_encoder, top_n=2)
    return {
        "colbert": by_colbert,
        "stored vectors": ColBERTRerank(index=index, top_n=2),
        "windows": CrossEncoderRerank(model=cross_encoder, window=8),
        "cross-encoder": by_reader,
        "cascade": CascadeRerank(stages=[by_colbert, by_reader]),
    }[request.param]


def same(results: list[list[Document]], expected: list[list[Document]]) -> bool:
    """Return whether both are equal up to the last digits, because batches of other texts round differently."""

    def plain(documents: list[Document]) -> Any:
        return [
            (
                document.id,
                document.page_content,
                {key: value for key, value in document.metadata.items() if not isinstance(value, float | dict)},
            )
            for document in documents
        ]

    def scores(documents: list[Document]) -> list[float]:
        return [document.metadata["relevance_score"] for document in documents]

    return [plain(documents) for documents in results] == [plain(documents) for documents in expected] and all(
        scores(documents) == pytest.approx(scores(other), abs=1e-5)
        for documents, other in zip(results, expected, strict=True)
    )


async def test_is_one_by_one(base: Any, compressor: Any) -> None:
    retriever = RerankingRetriever(base_retriever=base, compressor=compressor)
    one_by_one = [retriever.invoke(query) for query in SOME]
    assert [len(documents) for documents in one_by_one][3:] == [0, len(one_by_one[0]), 0]
    assert same(retriever.batch(SOME), one_by_one)
    assert same(await retriever.abatch(SOME), one_by_one)
    few = [retriever.invoke(query, k=2, filter={"tags": "odd"}) for query in SOME]
    assert same(retriever.batch(SOME, k=2, filter={"tags": "odd"}), few)
    assert same(await retriever.abatch(SOME, k=2, filter={"tags": "odd"}), few)
    assert same(retriever.batch([QUERIES[2]]), [retriever.invoke(QUERIES[2])])


def test_all_are_scored_together(base: Any, cross_encoder_dir: Any) -> None:
    model = CountingModel(str(cross_encoder_dir), dtype="float32", device="cpu")
    retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderRerank(model=model))
    retriever.batch(SOME)
    assert model.calls == 1


def test_nothing_to_do(base: Any, cross_encoder: CrossEncoderModel) -> None:
    for model, strict in ((Picky(), False), (cross_encoder, True)):
        retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderRerank(model=model, strict=strict))
        assert retriever.batch([]) == []
        assert retriever.batch([" ", ""]) == [[], []]


def test_a_compressor_of_another_kind_is_asked_itself(base: Any) -> None:
    for compressor in (Reverse(), Shouting(model=Picky())):
        retriever = RerankingRetriever(base_retriever=base, compressor=compressor)
        queries = [QUERIES[0], " ", QUERIES[2]]
        assert retriever.batch(queries) == [retriever.invoke(query) for query in queries]


def test_over_a_runnable_and_inside_a_chain(base: Any, compressor: Any) -> None:
    retriever = RerankingRetriever(
        base_retriever=RunnableLambda(lambda query: base.invoke(query, k=3)), compressor=compressor
    )
    expected = [[document.id for document in retriever.invoke(query)] for query in SOME]
    chain = retriever | RunnableLambda(lambda documents: [document.id for document in documents])
    assert chain.batch(SOME) == expected


def test_exceptions_are_returned_one_by_one(base: Any) -> None:
    retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderRerank(model=Picky()))
    first, second, third = retriever.batch(QUERIES[:3], return_exceptions=True)
    assert first == retriever.invoke(QUERIES[0])
    assert str(second) == "not this one"
    assert third == retriever.invoke(QUERIES[2])


def test_a_config_for_each(base: Any, colbert: ColBERTModel) -> None:
    retriever = RerankingRetriever(base_retriever=base, compressor=ColBERTRerank(model=colbert))
    with pytest.raises(ValueError, match="same length"):
        retriever.batch(list(QUERIES[:3]), [{}, {}])
    recorder, run_ids = Recorder(), [uuid4(), uuid4()]
    configs: Any = [
        {"callbacks": [recorder], "run_name": f"run {number}", "tags": [f"tag {number}"], "run_id": run_ids[number]}
        for number in range(2)
    ]
    retriever.batch(list(QUERIES[:2]), configs)
    for number in range(2):
        assert recorder.id_of(f"run {number}") == run_ids[number]
        assert recorder.named(f"run {number}").tags == [f"tag {number}"]


@pytest.mark.parametrize("limit", [1, 2])
def test_max_concurrency_holds_for_the_base_retriever(colbert: ColBERTModel, limit: int) -> None:
    base = Busy()
    retriever = RerankingRetriever(base_retriever=base, compressor=ColBERTRerank(model=colbert))
    retriever.batch(list(QUERIES[:6]), {"max_concurrency": limit})
    assert 1 <= base._most <= limit


class Busy(BaseRetriever):
    """Counts how many ask at the same time."""

    _now: int = 0
    _most: int = 0
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        with self._lock:
            self._now += 1
            self._most = max(self._most, self._now)
        time.sleep(0.01)
        with self._lock:
            self._now -= 1
        return [Document("Mars is red.")]


CONFIG: dict[str, Any] = {"tags": ["call"], "metadata": {"user": "ada"}, "run_name": "asked"}


async def test_traces_are_those_of_one_by_one(base: Any, cross_encoder: CrossEncoderModel) -> None:
    retriever = RerankingRetriever(
        base_retriever=base,
        compressor=CrossEncoderRerank(model=cross_encoder),
        tags=["own"],
        metadata={"version": 1},
    )
    queries = [*QUERIES[:3], " "]
    recorders = [Recorder() for _ in range(3)]
    invoked, batched, abatched = ({**CONFIG, "callbacks": [recorder]} for recorder in recorders)
    for query in queries:
        retriever.invoke(query, invoked)  # type: ignore[arg-type]
    retriever.batch(queries, batched)  # type: ignore[arg-type]
    await retriever.abatch(queries, abatched)  # type: ignore[arg-type]
    expected, *others = (shape(recorder.trees()) for recorder in recorders)
    assert len(expected) == len(queries)
    assert [[child["name"] for child in tree["children"]] for tree in expected] == [
        ["ColBERTRetriever"],
        *[["ColBERTRetriever", "CrossEncoderRerank"]] * 3,
    ]
    assert all(tree["name"] == "asked" and set(tree["tags"]) == {"call", "own"} for tree in expected)
    assert all(tree["metadata"]["user"] == "ada" and tree["metadata"]["version"] == 1 for tree in expected)
    for trees in others:
        assert trees == expected


def shape(tree: Any) -> Any:
    """The tree with documents by their ids: scores of other batches may differ in their last digits."""
    if isinstance(tree, dict):
        return {key: shape(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [shape(value) for value in tree]
    return tree.id if isinstance(tree, Document) else tree


def test_an_error_while_scoring_closes_every_run(base: Any) -> None:
    recorder = Recorder()
    retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderRerank(model=Picky()))
    with pytest.raises(RuntimeError, match="not this one"):
        retriever.batch(QUERIES[:3], {"callbacks": [recorder]})
    assert recorder.balanced()
    assert len(recorder.runs) == 9
    assert all(run.ends for run in recorder.all_named("ColBERTRetriever"))
    for name in ("CrossEncoderRerank", "RerankingRetriever"):
        assert [str(error) for run in recorder.all_named(name) for error in run.errors] == ["not this one"] * 3


def test_an_error_while_retrieving_closes_every_run(index: ColBERTIndex, colbert: ColBERTModel) -> None:
    recorder = Recorder()
    retriever = RerankingRetriever(
        base_retriever=ColBERTRetriever(index=index), compressor=ColBERTRerank(model=colbert)
    )
    with pytest.raises(InvalidInputError, match="operator"):
        retriever.batch(QUERIES[:3], {"callbacks": [recorder]}, filter={"year": {"$near": 3}})
    assert recorder.balanced()
    assert [len(run.errors) for run in recorder.all_named("RerankingRetriever")] == [1, 1, 1]


@pytest.mark.parametrize("event", ["on_retriever_start", "on_retriever_end", "on_chain_start", "on_chain_end"])
def test_a_handler_that_raises_leaves_no_run_of_another_open(base: Any, colbert: ColBERTModel, event: str) -> None:
    class Raising(Recorder):
        raise_error = True

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"no {event}")

    raising, recorder = Raising(), Recorder()
    setattr(raising, event, fail)
    retriever = RerankingRetriever(base_retriever=base, compressor=ColBERTRerank(model=colbert))
    # The one that raises hears of the end after the one that records, and of the start before it.
    handlers = [raising, recorder] if event.endswith("start") else [recorder, raising]
    with pytest.raises(RuntimeError, match=f"no {event}"):
        retriever.batch(QUERIES[:3], {"callbacks": handlers})
    assert recorder.balanced()


def test_what_the_base_finds_that_is_no_document(colbert: ColBERTModel) -> None:
    recorder = Recorder()
    retriever = RerankingRetriever(
        base_retriever=RunnableLambda(lambda query: ["a text"]), compressor=ColBERTRerank(model=colbert)
    )
    with pytest.raises(InvalidInputError, match="document number 0 is of type str"):
        retriever.batch(QUERIES[:2], {"callbacks": [recorder]})
    assert recorder.balanced()


def test_compress_many_wants_one_list_of_documents_a_query(colbert: ColBERTModel) -> None:
    reranker = ColBERTRerank(model=colbert)
    assert reranker.compress_many([], []) == []
    with pytest.raises(InvalidInputError, match="1 lists of documents and 2 callbacks for 2 queries"):
        reranker.compress_many([[Document("Mars is red.")]], list(QUERIES[:2]))
