"""Write LangChain's components over an index in a folder; answer from that folder as a script, in a new process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from corpus import ENGLISH
from langchain_core.documents import Document

from rerank_integrations import ColBERTModel
from rerank_integrations.langchain import ColBERTRetriever, ColBERTVectorStore

QUERIES = (ENGLISH[3], "A new text.")
SINCE = {"year": {"$gte": 2010}}


def write(folder: Path, model: ColBERTModel) -> dict[str, Any]:
    """Store, replace and delete documents, and return the answers of the components that did so."""
    documents = [
        Document(id=f"d{number}", page_content=text, metadata={"year": 2000 + number, "tags": ["a", str(number)]})
        for number, text in enumerate(ENGLISH[:20])
    ]
    store = ColBERTVectorStore.from_documents(documents, model, path=folder / "index")
    store.add_documents([Document(id="d3", page_content="A new text.", metadata={"year": 2030})])
    store.delete(["d4"])
    with store.index:
        return answers(store, ColBERTRetriever(index=store.index, k=5, filter=SINCE))


def read(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of components that open the index by its path and the options of its model."""
    index = {"path": folder / "index", "model": options}
    return answers(ColBERTVectorStore(index), ColBERTRetriever(index=index, k=5, filter=SINCE))


def answers(store: ColBERTVectorStore, retriever: ColBERTRetriever) -> dict[str, Any]:
    """Return ids, texts, metadata and scores for each query."""
    scored = {
        query: [
            *store.similarity_search_with_score(query, k=4),
            *store.similarity_search_with_score(query, filter=SINCE),
        ]
        for query in QUERIES
    }
    return {
        "store": {
            query: [[score, document.model_dump()] for document, score in hits] for query, hits in scored.items()
        },
        "stored": [document.model_dump() for document in store.get_by_ids(["d3", "d4", "d5"])],
        "retriever": {query: [document.model_dump() for document in retriever.invoke(query)] for query in QUERIES},
    }


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]), json.loads(sys.argv[2]))))
