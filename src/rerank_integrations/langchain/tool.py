"""A retriever as a tool for an agent: text for the language model, and what was found for the program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Not for type checkers alone: LangChain reads the annotation when the tool is made.
from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.prompts import BasePromptTemplate, PromptTemplate, aformat_document, format_document
from langchain_core.retrievers import RetrieverLike
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from rerank_integrations.core.reranking.metadata import retrieval_score, score_keys_of
from rerank_integrations.langchain.documents import RankedDocument

_NOTES = ("window_start", "window_end", "truncated")


class RetrieverInput(BaseModel):
    """Arguments of the tool."""

    query: str = Field(description="What to look for.")


def create_retriever_tool(
    retriever: RetrieverLike,
    name: str,
    description: str,
    *,
    document_prompt: BasePromptTemplate[str] | None = None,
    document_separator: str = "\n\n",
) -> StructuredTool:
    """Create a tool that retrieves documents: their texts for the language model, and an artifact for the program.

    LangChain's own function of this name has the same arguments. This one always returns both content and artifact, and
    its artifact can be written as JSON, as a checkpointer of LangGraph does.

    Parameters
    ----------
    retriever
        A `ColBERTRetriever`, a `RerankingRetriever`, or any runnable from a query to documents.
    name, description
        Both are shown to the language model.
    document_prompt
        How a document is shown to the language model; by default its text alone.
    document_separator
        Between two documents.

    Returns
    -------
    StructuredTool
        The artifact of its messages is a list with a dictionary per document, best first:

        - ``id``, ``text`` and ``metadata``, the latter without scores and notes; dates, paths and whatever else JSON
          lacks are strings in it;
        - ``rank``, from 1, and ``score``, where the document has one;
        - ``window_start`` and ``window_end``, the character span of the best window, where a reranker with a ``window``
          scored the text; and ``truncated``, as in docs/reference/notes.md.
    """
    prompt = PromptTemplate.from_template("{page_content}") if document_prompt is None else document_prompt

    def retrieve(query: str, callbacks: Callbacks = None) -> tuple[str, list[dict[str, Any]]]:
        documents = retriever.invoke(query, config={"callbacks": callbacks})
        texts = [format_document(document, prompt) for document in documents]
        return document_separator.join(texts), _artifact(documents)

    async def aretrieve(query: str, callbacks: Callbacks = None) -> tuple[str, list[dict[str, Any]]]:
        documents = await retriever.ainvoke(query, config={"callbacks": callbacks})
        texts = [await aformat_document(document, prompt) for document in documents]
        return document_separator.join(texts), _artifact(documents)

    return StructuredTool(
        name=name,
        description=description,
        func=retrieve,
        coroutine=aretrieve,
        args_schema=RetrieverInput,
        response_format="content_and_artifact",
    )


def _artifact(documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_row(document, rank) for rank, document in enumerate(documents, start=1)]


def _row(document: Document, rank: int) -> dict[str, Any]:
    metadata = document.metadata
    ours = document.score_keys if isinstance(document, RankedDocument) else score_keys_of(metadata)
    row: dict[str, Any] = {"id": document.id, "text": document.page_content, "rank": rank}
    score = retrieval_score(metadata)
    if score is not None and math.isfinite(score):
        row["score"] = score
    row |= {key: metadata[key] for key in _NOTES if key in ours}
    own = {key: value for key, value in metadata.items() if key not in ours}
    row["metadata"] = to_jsonable_python(own, fallback=str)
    return row
