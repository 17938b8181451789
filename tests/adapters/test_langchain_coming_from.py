"""LangChain's own rerankers and ours, as docs/how-to/coming_from.md compares them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from corpus import QUERIES
from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import BaseModel, ConfigDict, Field

from rerank_integrations import ColBERTModel, CrossEncoderModel, InvalidInputError, Passage
from rerank_integrations.langchain import CascadeRerank, ColBERTRerank, CrossEncoderRerank, RerankingRetriever

QUERY = QUERIES[0]


class CrossEncoderReranker(BaseDocumentCompressor):
    """As in langchain-classic, whose package the tests do without."""

    model: BaseCrossEncoder
    top_n: int = 3
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        scores = self.model.score([(query, document.page_content) for document in documents])
        ranked = sorted(zip(documents, scores, strict=False), key=operator.itemgetter(1), reverse=True)
        return [document for document, _ in ranked[: self.top_n]]


class HuggingFaceCrossEncoder(BaseModel, BaseCrossEncoder):
    """As in langchain-community."""

    client: Any = None
    model_name: str
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def __init__(self, **kwargs: Any) -> None:
        from sentence_transformers import CrossEncoder

        super().__init__(**kwargs)
        self.client = CrossEncoder(self.model_name, **self.model_kwargs)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        scores = self.client.predict(text_pairs)
        if len(scores.shape) > 1:
            scores = (score[1] for score in scores)
        return scores  # type: ignore[no-any-return]


@pytest.fixture
def documents(passages: list[Passage]) -> list[Document]:
    return [Document(id=passage.id, page_content=passage.text) for passage in passages[:12]]


@pytest.fixture(scope="module")
def theirs(cross_encoder_dir: Path) -> HuggingFaceCrossEncoder:
    return HuggingFaceCrossEncoder(model_name=str(cross_encoder_dir), model_kwargs={"device": "cpu"})


def ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_our_model_in_langchains_compressor(
    cross_encoder: CrossEncoderModel, theirs: HuggingFaceCrossEncoder, documents: list[Document]
) -> None:
    assert isinstance(cross_encoder, BaseCrossEncoder)
    ours = CrossEncoderReranker(model=cross_encoder).compress_documents(documents, QUERY)
    assert ids(ours) == ids(CrossEncoderReranker(model=theirs).compress_documents(documents, QUERY))
    assert ids(ours) == ids(CrossEncoderRerank(model=cross_encoder).compress_documents(documents, QUERY))
    pairs = [(QUERY, document.page_content) for document in documents]
    assert cross_encoder.score(pairs) == pytest.approx(theirs.score(pairs), abs=1e-5)  # type: ignore[arg-type]


async def test_their_model_in_our_compressor(
    cross_encoder: CrossEncoderModel, theirs: HuggingFaceCrossEncoder, documents: list[Document]
) -> None:
    reranker = CrossEncoderRerank(model=theirs, top_n=5)  # type: ignore[arg-type]
    got = reranker.compress_documents(documents, QUERY)
    expected = CrossEncoderRerank(model=cross_encoder, top_n=5).compress_documents(documents, QUERY)
    assert ids(got) == ids(expected)
    assert ids(await reranker.acompress_documents(documents, QUERY)) == ids(expected)
    scores = [document.metadata["relevance_score"] for document in got]
    assert all(type(score) is float for score in scores)
    assert scores == pytest.approx([document.metadata["relevance_score"] for document in expected], abs=1e-5)
    assert {document.metadata["score_scale"] for document in got} == {"own"}
    for option in ({"window": 16}, {"stride": 8}):
        with pytest.raises(InvalidInputError, match="expected a ColBERTModel or a CrossEncoderModel"):
            CrossEncoderRerank(model=theirs, **option)  # type: ignore[arg-type]


def test_either_compressor_in_our_retriever_and_in_a_cascade(
    colbert: ColBERTModel,
    cross_encoder: CrossEncoderModel,
    theirs: HuggingFaceCrossEncoder,
    documents: list[Document],
) -> None:
    from langchain_core.runnables import RunnableLambda

    base = RunnableLambda(lambda query: documents)
    retriever = RerankingRetriever(base_retriever=base, compressor=CrossEncoderReranker(model=cross_encoder))
    assert ids(retriever.invoke(QUERY)) == ids(
        CrossEncoderRerank(model=cross_encoder).compress_documents(documents, QUERY)
    )
    stages: list[Any] = [
        ColBERTRerank(model=colbert, top_n=6),
        CrossEncoderRerank(model=theirs, top_n=2),  # type: ignore[arg-type]
    ]
    assert len(CascadeRerank(stages=stages).compress_documents(documents, QUERY)) == 2
