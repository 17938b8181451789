"""Structured queries of LangChain as filters, and the retrievers of langchain-classic over a `ColBERTVectorStore`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.stores import InMemoryStore
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    FilterDirective,
    Operation,
    Operator,
    StructuredQuery,
)
from toy import ToyEncoder

from rerank_integrations import ColBERTIndex, InvalidInputError
from rerank_integrations.langchain import ColBERTFilterTranslator, ColBERTVectorStore

YEARS = {f"d{year}{kind}": (year, kind) for year in range(2020, 2024) for kind in ("report", "note")}
COMPARISONS: dict[Comparator, Any] = {
    Comparator.EQ: lambda stored, value: stored == value,
    Comparator.NE: lambda stored, value: stored != value,
    Comparator.GT: lambda stored, value: stored > value,
    Comparator.GTE: lambda stored, value: stored >= value,
    Comparator.LT: lambda stored, value: stored < value,
    Comparator.LTE: lambda stored, value: stored <= value,
    Comparator.IN: lambda stored, value: stored in value,
    Comparator.NIN: lambda stored, value: stored not in value,
}
MANY = (Comparator.IN, Comparator.NIN)


@pytest.fixture(scope="module")
def store() -> Iterator[ColBERTVectorStore]:
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        filled = ColBERTVectorStore(index)
        filled.add_texts(
            [f"a {kind} of {year}" for year, kind in YEARS.values()],
            [{"year": year, "kind": kind, "day": f"{year}-06-01"} for year, kind in YEARS.values()],
            ids=YEARS,
        )
        yield filled


def comparison(draw: st.DrawFn) -> Comparison:
    comparator = draw(st.sampled_from(list(COMPARISONS)))
    attribute = draw(st.sampled_from(["year", "kind"]))
    values = st.integers(2019, 2024) if attribute == "year" else st.sampled_from(["report", "note", "other"])
    return Comparison(comparator, attribute, draw(st.lists(values, max_size=3) if comparator in MANY else values))


@st.composite
def directives(draw: st.DrawFn, depth: int = 2) -> FilterDirective:
    if depth == 0 or draw(st.booleans()):
        return comparison(draw)
    operator = draw(st.sampled_from(list(Operator)))
    count = 1 if operator is Operator.NOT else draw(st.integers(1, 3))
    return Operation(operator, [draw(directives(depth - 1)) for _ in range(count)])


def matches(directive: FilterDirective, year: int, kind: str) -> bool:
    if isinstance(directive, Comparison):
        stored = year if directive.attribute == "year" else kind
        return bool(COMPARISONS[directive.comparator](stored, directive.value))
    assert isinstance(directive, Operation)
    parts = [matches(part, year, kind) for part in directive.arguments]
    if directive.operator is Operator.NOT:
        return not parts[0]
    return all(parts) if directive.operator is Operator.AND else any(parts)


@given(directive=directives())
def test_a_filter_means_what_the_structured_query_says(store: ColBERTVectorStore, directive: FilterDirective) -> None:
    query, arguments = ColBERTFilterTranslator().visit_structured_query(StructuredQuery("a report", directive, None))
    assert query == "a report"
    expected = {key for key, (year, kind) in YEARS.items() if matches(directive, year, kind)}
    assert set(store.index.ids(arguments["filter"])) == expected


def test_a_query_without_a_filter_searches_all() -> None:
    assert ColBERTFilterTranslator().visit_structured_query(StructuredQuery("text", None, 3)) == ("text", {})


def test_dates_are_compared_as_texts(store: ColBERTVectorStore) -> None:
    since = Comparison(Comparator.GTE, "day", {"date": "2022-01-01", "type": "date"})
    where = ColBERTFilterTranslator().visit_comparison(since)
    assert where == {"day": {"$gte": "2022-01-01"}}
    assert store.index.count(where) == 4


@pytest.mark.parametrize("comparator", [Comparator.CONTAIN, Comparator.LIKE])
def test_what_does_not_map_exactly_is_refused_by_name(comparator: Comparator) -> None:
    translator = ColBERTFilterTranslator()
    assert comparator not in (translator.allowed_comparators or ())
    with pytest.raises(InvalidInputError, match=f"'kind' is '{comparator.value}'"):
        translator.visit_comparison(Comparison(comparator, "kind", "rep"))


@pytest.mark.parametrize("operation", [Operation(Operator.AND, []), Operation(Operator.NOT, [])])
def test_an_operation_without_arguments_is_refused(operation: Operation) -> None:
    with pytest.raises(InvalidInputError, match="arguments"):
        ColBERTFilterTranslator().visit_operation(operation)


def test_a_self_query_retriever(store: ColBERTVectorStore) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers.self_query.base")
    pytest.importorskip("lark", reason="LangChain parses a structured query by it")
    from langchain_classic.chains.query_constructor.schema import AttributeInfo

    answer = '```json\n{"query": "a report", "filter": "and(gte(\\"year\\", 2022), eq(\\"kind\\", \\"report\\"))"}\n```'
    retriever = retrievers.SelfQueryRetriever.from_llm(
        FakeListLLM(responses=[answer]),
        store,
        "documents of a company",
        [
            AttributeInfo(name=name, description=name, type=kind)
            for name, kind in (("year", "integer"), ("kind", "string"))
        ],
        structured_query_translator=ColBERTFilterTranslator(),
    )
    assert {document.id for document in retriever.invoke("reports since 2022")} == {"d2022report", "d2023report"}


def test_a_parent_document_retriever() -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    splitters = pytest.importorskip("langchain_text_splitters")
    whole = Document(page_content="The fox is red. " * 5 + "The whale is blue. " * 5, metadata={"source": "animals"})
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        retriever = retrievers.ParentDocumentRetriever(
            vectorstore=ColBERTVectorStore(index),
            docstore=InMemoryStore(),
            child_splitter=splitters.RecursiveCharacterTextSplitter(chunk_size=40, chunk_overlap=0),
        )
        retriever.add_documents([whole, Document(page_content="A frog is green.")])
        assert len(index) > 4
        assert retriever.invoke("blue whale")[0] == whole
        retriever.search_type = "mmr"
        assert retriever.invoke("green frog")[0].page_content == "A frog is green."


def test_a_multi_vector_retriever() -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    with ColBERTIndex.create(None, ToyEncoder()) as index:
        retriever = retrievers.MultiVectorRetriever(
            vectorstore=ColBERTVectorStore(index), byte_store=InMemoryStore(), id_key="doc_id", search_kwargs={"k": 2}
        )
        retriever.vectorstore.add_documents(
            [
                Document(page_content="red fox summary", metadata={"doc_id": "fox"}),
                Document(page_content="which animal is a fox?", metadata={"doc_id": "fox"}),
                Document(page_content="blue whale summary", metadata={"doc_id": "whale"}),
            ]
        )
        texts = {"fox": "All about foxes.", "whale": "All about whales."}
        retriever.docstore.mset([(key, Document(page_content=text)) for key, text in texts.items()])
        assert [document.page_content for document in retriever.invoke("fox")] == ["All about foxes."]


def test_a_multi_query_retriever_finds_no_document_twice(store: ColBERTVectorStore) -> None:
    """Its union compares whole documents, so scores must not be in their metadata."""
    retrievers = pytest.importorskip("langchain_classic.retrievers.multi_query")
    rewrites = FakeListLLM(responses=["a report of 2020\na note of 2021\na report of 2022"])
    retriever = retrievers.MultiQueryRetriever.from_llm(
        retriever=store.as_retriever(search_kwargs={"k": 8}), llm=rewrites
    )
    ids = [document.id for document in retriever.invoke("reports")]
    assert sorted(map(str, ids)) == sorted(YEARS)
