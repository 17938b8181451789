"""The runs that LangChain's callbacks see: their tree, their metadata, their ends and errors."""

from __future__ import annotations

from typing import Any

import pytest
from corpus import QUERIES
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from runs_langchain import Recorder

from rerank_integrations import ColBERTIndex, ColBERTModel, CrossEncoderModel, InvalidInputError
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    RerankingRetriever,
)

QUERY = QUERIES[0]


class Broken:
    def score(self, query: str, texts: list[str]) -> list[float]:
        raise RuntimeError("out of order")


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
    retrieved = ColBERTRetriever(index=index).invoke(QUERY, {"callbacks": [recorder]})
    ColBERTRerank(model=colbert).compress_documents(retrieved, QUERY, callbacks=[recorder])
    CrossEncoderRerank(model=cross_encoder).compress_documents(retrieved, QUERY, callbacks=[recorder])
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
    retrieved = ColBERTRetriever(index=index).invoke(QUERY)
    reranker = ColBERTRerank(model=colbert)

    async def arun(query: str) -> Any:
        return await reranker.acompress_documents(retrieved, query)

    step = RunnableLambda(lambda query: reranker.compress_documents(retrieved, query), arun, name="step")
    config: Any = {"callbacks": [recorder]}
    _ = step.invoke(QUERY, config) if mode == "sync" else await step.ainvoke(QUERY, config)
    assert recorder.named("ColBERTRerank").parent == recorder.id_of("step")


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_cascade_is_one_run(
    recorder: Recorder, colbert: ColBERTModel, cross_encoder: CrossEncoderModel, mode: str
) -> None:
    documents = [Document("Mars is red."), Document("A zip file."), Document("Rain.")]
    for second, stops in ((CrossEncoderRerank(model=cross_encoder), False), (CrossEncoderRerank(model=Broken()), True)):
        recorder.runs.clear()
        cascade = CascadeRerank(stages=[ColBERTRerank(model=colbert), second])
        if mode == "sync":
            ranked = cascade.compress_documents(documents, QUERY, callbacks=[recorder])
        else:
            ranked = await cascade.acompress_documents(documents, QUERY, callbacks=[recorder])
        (run,) = recorder.runs.values()
        assert (run.name, run.ends, run.errors) == ("CascadeRerank", [{"documents": ranked}], [])
        last = "Broken" if stops else cross_encoder.name
        assert run.metadata["ls_model_name"] == f"{colbert.name} > {last}"
        # What a cascade recovers from is in the documents.
        assert all(("rerank_stopped" in document.metadata) == stops for document in ranked)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("wrong", ["documents", "one document", "strict", "option set to nonsense"])
async def test_every_error_closes_the_run(recorder: Recorder, colbert: ColBERTModel, mode: str, wrong: str) -> None:
    argument: Any = {
        "documents": ["no document"],
        "one document": Document("Mars is red."),
        "strict": [Document("Mars is red. " * 400)],
    }.get(wrong, [Document("Mars is red.")])
    reranker = ColBERTRerank(model=colbert, strict=True)
    if wrong == "option set to nonsense":
        reranker.window = 1
    with pytest.raises(ValueError, match=r"expected|longer than the model reads"):
        if mode == "sync":
            reranker.compress_documents(argument, QUERY, callbacks=[recorder])
        else:
            await reranker.acompress_documents(argument, QUERY, callbacks=[recorder])
    (run,) = recorder.runs.values()
    assert (len(run.errors), run.ends) == (1, [])


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_handler_that_raises_at_the_end_leaves_no_run_open(
    recorder: Recorder, colbert: ColBERTModel, mode: str
) -> None:
    class Raising(Recorder):
        raise_error = True

        def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_chain_end(*args, **kwargs)
            raise RuntimeError("no end")

    raising = Raising()
    reranker, documents = ColBERTRerank(model=colbert), [Document("Mars is red.")]
    with pytest.raises(RuntimeError, match="no end"):
        if mode == "sync":
            reranker.compress_documents(documents, QUERY, callbacks=[recorder, raising])
        else:
            await reranker.acompress_documents(documents, QUERY, callbacks=[recorder, raising])
    assert recorder.balanced()
    assert raising.balanced()
