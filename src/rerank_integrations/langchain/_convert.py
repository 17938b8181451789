"""Hits, candidates and rankings as LangChain documents."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document

from rerank_integrations.core.models import CrossEncoderModel
from rerank_integrations.core.reranking import Candidate, Ranked
from rerank_integrations.core.reranking.metadata import copied, retrieval_score, with_ranking, with_retrieval
from rerank_integrations.core.structure import without_structure
from rerank_integrations.core.types import Hit, Passage
from rerank_integrations.errors import InvalidInputError
from rerank_integrations.langchain.documents import RankedDocument


class TextTemplate:
    """A template such as ``"{title}: {page_content}"``, with names alone: no attributes and no calls.

    A value of ``None`` is written as nothing.

    Raises
    ------
    InvalidInputError
        If it is not a string, cannot be parsed, has no name, or has more than names in its braces.
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise InvalidInputError(f"the template is of type {type(template).__name__}; expected str")
        try:
            self._parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise InvalidInputError(f"the template {template!r} cannot be read: {error}") from error
        names = [name for _, name, _, _ in self._parts if name is not None]
        if not names or any(
            not name.isidentifier() or format_spec or conversion
            for _, name, format_spec, conversion in self._parts
            if name is not None
        ):
            raise InvalidInputError(f"the template is {template!r}; expected names in braces, as in '{{page_content}}'")

    def fill(self, values: Mapping[str, object], which: str) -> str:
        """Return the text with `values` for the names; an error names the candidate by `which`.

        Raises
        ------
        InvalidInputError
            If a name has no value.
        """
        return "".join(
            before + ("" if name is None else _value(values, name, which)) for before, name, _, _ in self._parts
        )


def _value(values: Mapping[str, object], name: str, which: str) -> str:
    if name not in values:
        known = ", ".join(sorted(map(str, values)))
        raise InvalidInputError(f"{which} has no {name!r} for the template; it has {known}")
    return "" if values[name] is None else str(values[name])


TextFn: TypeAlias = Callable[[Document], str] | str

# A `CrossEncoderModel` scores (query, text) pairs as LangChain's own do.
# It is a virtual subclass, because the core knows no framework.
BaseCrossEncoder.register(CrossEncoderModel)


class PairScorer:
    """A scorer that calls a cross-encoder of LangChain's kind."""

    def __init__(self, model: BaseCrossEncoder) -> None:
        self._model = model
        self.name = str(getattr(model, "model_name", type(model).__name__))

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Return one score per text; higher is better."""
        return list(self._model.score([(query, text) for text in texts]))


def hit_to_document(hit: Passage | Hit) -> Document:
    """Return a document with the id, text and metadata of a passage or a hit."""
    return Document(id=hit.id, page_content=hit.text, metadata=without_structure(hit.metadata))


def scored_document(hit: Hit) -> Document:
    """Do as `hit_to_document`, with the hit's score and rank in the metadata."""
    document = hit_to_document(hit)
    return RankedDocument.from_document(document, with_retrieval(hit, document.metadata))


def ranked_document(document: Document, ranked: Ranked, rank: int, *, scores_in_metadata: bool) -> Document:
    """Return a copy of `document`, if wanted with the reranking's score, rank and note in its metadata."""
    if not scores_in_metadata:
        return document.model_copy(update={"metadata": copied(document.metadata)})
    score_keys = document.score_keys if isinstance(document, RankedDocument) else None
    metadata = with_ranking(document.metadata, ranked, rank, score_keys=score_keys)
    if type(document) in (Document, RankedDocument):
        return RankedDocument.from_document(document, metadata)
    # A class of the user's own stays what it is.
    return document.model_copy(update={"metadata": metadata.values})


def as_list(documents: Iterable[Document]) -> Iterable[Document]:
    """Return `documents` as a list, so that an iterator can be both traced and ranked; anything else as it is."""
    single = isinstance(documents, str | Document) or not isinstance(documents, Iterable)
    return documents if single else list(documents)


def require_documents(documents: Iterable[Document]) -> list[Document]:
    """Return `documents`, the result of `as_list`, if it is a list of documents.

    Raises
    ------
    InvalidInputError
        If it is something else, or contains something else.
    """
    if not isinstance(documents, list):
        raise InvalidInputError(f"documents is one {type(documents).__name__}; expected a list of documents")
    for number, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InvalidInputError(f"document number {number} is of type {type(document).__name__}; expected Document")
    return documents


def candidates(documents: Sequence[Document], text_fn: TextFn | None) -> list[Candidate]:
    """Return the candidates for ranking: each document's id, its text by `text_fn`, and its retriever's score."""
    read = text_reader(text_fn)
    return [
        Candidate(
            document.id, read(document, number), retrieval_score(document.metadata), content=document.page_content
        )
        for number, document in enumerate(documents)
    ]


def text_reader(text_fn: TextFn | None) -> Callable[[Document, int], str]:
    """Return a function of a document and its number that returns the text to score.

    The text is the document's ``page_content``, or the result of the function or the template `text_fn`.

    Raises
    ------
    InvalidInputError
        If `text_fn` is something else; on reading, if a function returns anything but a string.
    """
    if text_fn is None:
        return lambda document, number: document.page_content
    if isinstance(text_fn, str):
        template = TextTemplate(text_fn)
        return lambda document, number: template.fill(
            {"id": document.id, **document.metadata, "page_content": document.page_content}, f"document number {number}"
        )
    if not callable(text_fn):
        raise InvalidInputError(f"text_fn is of type {type(text_fn).__name__}; expected a function or a template")
    return lambda document, number: _require_string(text_fn(document), number)


def _require_string(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"text_fn gave {text!r} for document number {number}; expected a string")
    return text
