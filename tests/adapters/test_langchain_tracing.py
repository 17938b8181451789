"""The runs that LangChain's callbacks see: their tree, their metadata, their ends and errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from corpus import QUERIES
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError
from rerank_integrations.langchain import ColBERTRerank, ColBERTRetriever, CrossEncoderRerank, RerankingRetriever

QUERY = QUERIES[0]


@dataclass
class Run:
    name: str
    parent: UUID | None
    metadata: dict[str, Any]
    inputs: Any
    ends: list[Any] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.runs: dict[UUID, Run] = {}

    def named(self, name: str) -> Run:
        (run,) = [run for run in self.runs.values() if run.name == name]
        return run

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id] = Run(kwargs["name"], kwargs["parent_run_id"], kwargs["metadata"], query)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].ends.append(documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].errors.append(error)

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id] = Run(kwargs["name"], kwargs["parent_run_id"], kwargs["metadata"], inputs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].ends.append(outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.runs[run_id].errors.append(error)

    def id_of(self, name: str) -> UUID:
        return next(run_id for run_id, run in self.runs.items() if run.name == name)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_tree_of_a_reranking_retriever(
    recorder: Recorder, index: ColBERTIndex, cross_encoder: CrossEncoderModel, mode: str
) -> None:
    retriever = RerankingRetriever(
        base_retriever=ColBERTRetriever(index=index, k=6), compressor=CrossEncoderRerank(model=cross_encoder)
    )
    config: Any = {"callbacks": [recorder]}
    documents = retriever.invoke(QUERY, config) if mode == "sync" else await retriever.ainvoke(QUERY, config)
    outer, inner, ranking = map(recorder.named, ("RerankingRetriever", "ColBERTRetriever", "CrossEncoderRerank"))
    assert len(recorder.runs) == 3
    assert outer.parent is None
    assert inner.parent == ranking.parent == recorder.id_of("RerankingRetriever")
    assert all(len(run.ends) == 1 and not run.errors for run in recorder.runs.values())
    assert ranking.inputs == {"query": QUERY, "documents": inner.ends[0]}
    assert ranking.ends == [{"documents": documents}]
    assert outer.ends == [documents]


def test_langsmith_parameters_name_the_models(
    recorder: Recorder, index: ColBERTIndex, colbert: ColBERTModel, cross_encoder: CrossEncoderModel
) -> None:
    found = ColBERTRetriever(index=index).invoke(QUERY, {"callbacks": [recorder]})
    ColBERTRerank(model=colbert).compress_documents(found, QUERY, callbacks=[recorder])
    CrossEncoderRerank(model=cross_encoder).compress_documents(found, QUERY, callbacks=[recorder])
    assert recorder.named("ColBERTRetriever").metadata == {
        "ls_retriever_name": "colbert",
        "ls_vector_store_provider": "ColBERTIndex",
        "ls_embedding_provider": "rerank_integrations",
        "ls_embedding_model": colbert.name,
    }
    assert recorder.named("ColBERTRerank").metadata["ls_model_name"] == colbert.name
    assert recorder.named("CrossEncoderRerank").metadata["ls_model_name"] == cross_encoder.name


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_error_closes_every_run(recorder: Recorder, index: ColBERTIndex, mode: str) -> None:
    class Broken:
        def score(self, query: str, texts: list[str]) -> list[float]:
            raise RuntimeError("out of order")

    retriever = RerankingRetriever(
        base_retriever=ColBERTRetriever(index=index), compressor=CrossEncoderRerank(model=Broken())
    )
    config: Any = {"callbacks": [recorder]}
    with pytest.raises(RuntimeError, match="out of order"):
        _ = retriever.invoke(QUERY, config) if mode == "sync" else await retriever.ainvoke(QUERY, config)
    assert len(recorder.named("ColBERTRetriever").ends) == 1
    for name in ("CrossEncoderRerank", "RerankingRetriever"):
        run = recorder.named(name)
        assert (len(run.errors), run.ends) == (1, [])


def test_bad_input_closes_the_run(recorder: Recorder, cross_encoder: CrossEncoderModel) -> None:
    with pytest.raises(InvalidInputError):
        CrossEncoderRerank(model=cross_encoder).compress_documents([], " ", callbacks=[recorder])
    assert len(recorder.named("CrossEncoderRerank").errors) == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_compressor_inside_a_runnable_belongs_to_it(
    recorder: Recorder, index: ColBERTIndex, colbert: ColBERTModel, mode: str
) -> None:
    found = ColBERTRetriever(index=index).invoke(QUERY)
    reranker = ColBERTRerank(model=colbert)

    async def arun(query: str) -> Any:
        return await reranker.acompress_documents(found, query)

    step = RunnableLambda(lambda query: reranker.compress_documents(found, query), arun, name="step")
    config: Any = {"callbacks": [recorder]}
    _ = step.invoke(QUERY, config) if mode == "sync" else await step.ainvoke(QUERY, config)
    assert recorder.named("ColBERTRerank").parent == recorder.id_of("step")
