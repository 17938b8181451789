"""Documents with scores: equal by content, written as plain documents, merged by LangChain's own retrievers."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.load import dumpd, dumps, load

from rerank_integrations import ColBERTIndex, ColBERTModel, InvalidInputError
from rerank_integrations.langchain import (
    CascadeRerank,
    ColBERTRerank,
    ColBERTRetriever,
    CrossEncoderRerank,
    RankedDocument,
    RerankingRetriever,
)

TEXTS = {"zip": "zipfile reads archives", "csv": "csv reads tables", "tar": "tarfile unpacks archives"}
QUESTIONS = ["open an archive", "read a zip file", "unpack a tarball"]


class Lengths:
    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def score(self, query: str, texts: list[str]) -> list[float]:
        return [float(self.sign * len(text)) for text in texts]


@pytest.fixture
def retriever(colbert: ColBERTModel) -> Any:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([{"id": name, "text": text, "metadata": {"from": name}} for name, text in TEXTS.items()])
        yield ColBERTRetriever(index=index, k=3)


def by_id(documents: list[Document]) -> dict[str | None, Document]:
    return {document.id: document for document in documents}


def test_a_passage_of_several_queries_is_one_document(retriever: ColBERTRetriever) -> None:
    first, second = (by_id(retriever.invoke(question)) for question in QUESTIONS[:2])
    reranked = by_id(CrossEncoderRerank(model=Lengths()).compress_documents(list(first.values()), "q"))
    for name in TEXTS:
        assert first[name].metadata["relevance_score"] != second[name].metadata["relevance_score"]
        assert first[name] == second[name] == reranked[name]
        assert first[name] in [second[name]]
    assert first["zip"] != first["csv"]
    moved = first["zip"].model_copy(update={"metadata": {**first["zip"].metadata, "from": "elsewhere"}})
    assert moved != first["zip"]


def test_a_plain_document_is_equal_with_the_same_scores_or_with_none(retriever: ColBERTRetriever) -> None:
    document = retriever.invoke(QUESTIONS[0])[0]
    same = Document(**document.model_dump(exclude={"type"}))
    bare = Document(document.page_content, id=document.id, metadata={"from": document.id})
    other = Document(document.page_content, id=document.id, metadata={**document.metadata, "relevance_score": -1.0})
    assert type(same) is Document
    assert document == same and same == document
    assert document == bare and bare == document
    assert document != other and other != document
    assert document != document.page_content


def test_keys_of_the_users_own_are_compared(colbert: ColBERTModel) -> None:
    with ColBERTIndex.create(None, colbert) as index:
        index.upsert([{"id": "a", "text": "a text", "metadata": {"truncated": 1, "relevance_score": "mine"}}])
        (document,) = ColBERTRetriever(index=index).invoke("text")
    assert document.metadata["previous_relevance_score"] == "mine"
    for key in ("truncated", "previous_relevance_score"):
        changed = document.model_copy(update={"metadata": {**document.metadata, key: 2}})
        assert changed != document


@pytest.mark.parametrize("way", [pickle.loads, copy.deepcopy, copy.copy])
def test_copies_are_equal_to_the_same_documents(retriever: ColBERTRetriever, way: Any) -> None:
    (document, *_), (other, *_) = (
        sorted(retriever.invoke(question), key=lambda found: str(found.id)) for question in QUESTIONS[:2]
    )
    copied = way(pickle.dumps(document)) if way is pickle.loads else way(document)
    assert type(copied) is RankedDocument
    assert copied == document == other == copied
    assert copied.model_dump() == document.model_dump()
    # Fields alone, as another program may send them.
    read = RankedDocument.model_validate(document.model_dump())
    assert read == other


def test_it_is_written_as_a_plain_document(retriever: ColBERTRetriever) -> None:
    document = retriever.invoke(QUESTIONS[0])[0]
    plain = Document(**document.model_dump(exclude={"type"}))
    assert dumpd(document) == dumpd(plain)
    back = load(json.loads(dumps(document)), allowed_objects=[Document])
    assert type(back) is Document
    assert back == document
    assert str(document) == str(plain)


def test_retrievers_of_langchain_that_merge_and_compress(retriever: ColBERTRetriever) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    questions = FakeListLLM(responses=["\n".join(QUESTIONS)])
    reranked = RerankingRetriever(base_retriever=retriever, compressor=CrossEncoderRerank(model=Lengths(-1)))
    for base in (retriever, reranked):
        multi_query = retrievers.MultiQueryRetriever.from_llm(retriever=base, llm=questions)
        assert sorted(found.id for found in multi_query.invoke("archives")) == sorted(TEXTS)
    ensemble = retrievers.EnsembleRetriever(retrievers=[retriever, reranked], weights=[0.5, 0.5])
    assert sorted(found.id for found in ensemble.invoke(QUESTIONS[0])) == sorted(TEXTS)
    merged = retrievers.MergerRetriever(retrievers=[retriever, reranked])
    assert len(merged.invoke(QUESTIONS[0])) == 6
    compressed = retrievers.ContextualCompressionRetriever(
        base_retriever=merged, base_compressor=CrossEncoderRerank(model=Lengths(), top_n=None)
    )
    assert [found.id for found in compressed.invoke(QUESTIONS[0])] == ["tar", "zip", "csv"]


def test_scores_can_stay_out_of_the_metadata(retriever: ColBERTRetriever, colbert: ColBERTModel) -> None:
    plain = ColBERTRetriever(index=retriever.index, scores_in_metadata=False).invoke(QUESTIONS[0])
    assert [type(document) for document in plain] == [Document] * 3
    assert [document.metadata for document in plain] == [{"from": document.id} for document in plain]
    stages = [CrossEncoderRerank(model=Lengths())]
    for reranker in (
        ColBERTRerank(model=colbert, scores_in_metadata=False),
        CrossEncoderRerank(model=Lengths(), scores_in_metadata=False),
        CascadeRerank(stages=stages, scores_in_metadata=False),
    ):
        ranked = reranker.compress_documents(plain, "q")
        assert [document.metadata for document in ranked] == [{"from": document.id} for document in ranked]
    written = dumps(ColBERTRerank(model=colbert, scores_in_metadata=False))
    back = load(json.loads(written), allowed_objects=[ColBERTRerank], valid_namespaces=["rerank_integrations"])
    assert back.scores_in_metadata is False
    for build in (
        lambda: ColBERTRetriever(index=retriever.index, scores_in_metadata=1),  # type: ignore[arg-type]
        lambda: CrossEncoderRerank(model=Lengths(), scores_in_metadata="no"),  # type: ignore[arg-type]
        lambda: CascadeRerank(stages=stages, scores_in_metadata=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInputError, match="scores_in_metadata is"):
            build()


def test_reranking_again_and_again_keeps_one_earlier_value(retriever: ColBERTRetriever) -> None:
    documents: Any = retriever.invoke(QUESTIONS[0])
    sizes = []
    for sign in (1, -1, 1, -1):
        documents = CrossEncoderRerank(model=Lengths(sign)).compress_documents(documents, "q")
        sizes.append(len(documents[0].metadata))
        assert not any(key.startswith("previous_previous_") for key in documents[0].metadata)
    assert sizes[1] == sizes[2] == sizes[3]
    assert documents[0].metadata["previous_relevance_score"] == -documents[0].metadata["relevance_score"]
    assert documents[0].metadata["from"] == documents[0].id
