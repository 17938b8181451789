"""The text of a document that is scored: ``text_fn``, a function or a template."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import QUERIES
from langchain_core.documents import Document
from langchain_core.load import dumps, load

from rerank_integrations import ColBERTIndex, InvalidInputError
from rerank_integrations.langchain import CascadeRerank, ColBERTRerank, ColBERTRetriever, CrossEncoderRerank

QUERY = QUERIES[0]


class Spy:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, query: str, texts: list[str]) -> list[float]:
        self.texts = texts
        return [float(len(text)) for text in texts]


MARS = Document(id="a", page_content="Mars is red.", metadata={"title": "Planets", "author": None, "year": 1609})


@pytest.mark.parametrize(
    ("text_fn", "shown"),
    [
        (None, "Mars is red."),
        ("{page_content}", "Mars is red."),
        ("{title} ({year}): {page_content}", "Planets (1609): Mars is red."),
        ("{{{title}}}", "{Planets}"),
        # No value, no text: never the word None.
        ("{author}{page_content}", "Mars is red."),
        ("{id}: {page_content}", "a: Mars is red."),
        (lambda document: document.metadata["title"], "Planets"),
        (lambda document: "", ""),
    ],
)
def test_what_is_scored(text_fn: Any, shown: str) -> None:
    spy = Spy()
    reranker = CrossEncoderRerank(model=spy, text_fn=text_fn)
    (ranked,) = reranker.compress_documents([MARS], QUERY)
    assert spy.texts == [shown]
    # What comes back is the document, not what was scored of it.
    assert (ranked.id, ranked.page_content) == ("a", "Mars is red.")


def test_the_users_own_id_and_a_document_without_one() -> None:
    spy = Spy()
    reranker = CrossEncoderRerank(model=spy, text_fn="{id}|{page_content}")
    reranker.compress_documents([Document("one", metadata={"id": "mine"}), Document("two")], QUERY)
    assert spy.texts == ["mine|one", "|two"]


@pytest.mark.parametrize(
    ("text_fn", "message"),
    [
        ("page_content", "expected names in braces"),
        ("{0}", "expected names in braces"),
        ("{page_content.real}", "expected names in braces"),
        ("{year:.3f}", "expected names in braces"),
        ("{page_content", "cannot be read"),
        (7, "text_fn is of type int; expected a function or a template"),
    ],
)
def test_what_is_no_text_fn(index: ColBERTIndex, text_fn: Any, message: str) -> None:
    for build in (
        lambda: CrossEncoderRerank(model=Spy(), text_fn=text_fn),
        lambda: ColBERTRerank(index=index, text_fn=text_fn),
    ):
        with pytest.raises(InvalidInputError, match=message):
            build()
    reranker = CrossEncoderRerank(model=Spy())
    reranker.text_fn = text_fn
    with pytest.raises(InvalidInputError, match=message):
        reranker.compress_documents([MARS], QUERY)


async def test_what_a_text_fn_cannot_give_is_an_error_also_in_a_cascade() -> None:
    missing = CrossEncoderRerank(model=Spy(), text_fn="{subtitle}: {page_content}")
    no_text = CrossEncoderRerank(model=Spy(), text_fn=lambda document: document.metadata["year"])
    for reranker, message in (
        (missing, "document number 0 has no 'subtitle' for the template; it has author, id"),
        (CascadeRerank(stages=[CrossEncoderRerank(model=Spy()), missing]), "has no 'subtitle'"),
        (no_text, "text_fn gave 1609 for document number 0; expected a string"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            reranker.compress_documents([MARS], QUERY)
        with pytest.raises(InvalidInputError, match=message):
            await reranker.acompress_documents([MARS], QUERY)


def test_by_default_what_an_index_holds(index: ColBERTIndex) -> None:
    retrieved = ColBERTRetriever(index=index, k=3).invoke(QUERY)
    ranked = ColBERTRerank(index=index).compress_documents(retrieved, QUERY)
    assert {document.metadata["vectors_from"] for document in ranked} == {"stored"}
    # The order and the scores of the search itself, which are kept.
    assert [document.id for document in ranked] == [document.id for document in retrieved]
    assert [document.metadata["retrieval_score"] for document in ranked] == [
        document.metadata["relevance_score"] for document in retrieved
    ]


def test_a_template_is_saved_and_a_function_is_never_lost_in_silence() -> None:
    def loaded(reranker: Any) -> Any:
        return load(
            json.loads(dumps(reranker)), allowed_objects=[CrossEncoderRerank], valid_namespaces=["rerank_integrations"]
        )

    assert loaded(CrossEncoderRerank(model="any", text_fn="{title}: {page_content}")).text_fn == (
        "{title}: {page_content}"
    )
    with pytest.raises(NotImplementedError):
        loaded(CrossEncoderRerank(model="any", text_fn=lambda document: document.page_content))
