"""Write LlamaIndex's indexes over an index in a folder; answer from that folder as a script, in a new process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from corpus import ENGLISH
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import NodeWithScore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from rerank_integrations import ColBERTIndex, ColBERTModel
from rerank_integrations.llama_index import ColBERTManagedIndex, ColBERTRetriever, ColBERTVectorStore

QUERIES = (ENGLISH[3], "A new text.")
SINCE = MetadataFilters(filters=[MetadataFilter(key="year", operator=FilterOperator.GTE, value=2010)])
EMBEDDING = MockEmbedding(embed_dim=1)
SPLITTER = TokenTextSplitter(chunk_size=24, chunk_overlap=0)


def write(folder: Path, model: ColBERTModel) -> dict[str, Any]:
    """Store, replace and delete documents, and return the answers of the indexes that did so."""
    documents = [
        Document(doc_id=f"d{number}", text=text, metadata={"year": 2000 + number, "tags": ["a", str(number)]})
        for number, text in enumerate(ENGLISH[:20])
    ]
    changed = Document(doc_id="d3", text="A new text.", metadata={"year": 2030})
    managed = ColBERTManagedIndex.from_documents(documents, model, folder / "managed", [SPLITTER])
    managed.refresh_ref_docs([changed])
    managed.delete_ref_doc("d4")
    with managed.index, ColBERTIndex.create(folder / "index", model) as stored:
        context = StorageContext.from_defaults(vector_store=ColBERTVectorStore(stored))
        index = VectorStoreIndex.from_documents(
            documents, storage_context=context, embed_model=EMBEDDING, transformations=[SPLITTER]
        )
        index.update_ref_doc(changed)
        index.delete_ref_doc("d4")
        context.persist(str(folder / "storage"))
        return answers(managed, index)


def read(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of indexes that are loaded from the folder."""
    context = StorageContext.from_defaults(
        persist_dir=str(folder / "storage"),
        vector_store=ColBERTVectorStore({"path": folder / "index", "model": options}),
    )
    index = load_index_from_storage(context, embed_model=EMBEDDING)
    assert isinstance(index, VectorStoreIndex)
    managed = ColBERTManagedIndex({"path": folder / "managed", "model": options}, transformations=[SPLITTER])
    return answers(managed, index)


def answers(managed: ColBERTManagedIndex, index: VectorStoreIndex) -> dict[str, Any]:
    """Return whole nodes and scores for each query, and the documents that the managed index knows."""
    retrievers = {
        "managed": managed.as_retriever(similarity_top_k=5),
        "managed, filtered": managed.as_retriever(similarity_top_k=5, filters=SINCE),
        "retriever": ColBERTRetriever(managed.index, 5, SINCE),
        "storage context": index.as_retriever(similarity_top_k=5),
        "storage context, filtered": index.as_retriever(similarity_top_k=5, filters=SINCE),
    }
    return {
        "documents": {name: info.to_dict() for name, info in sorted(managed.ref_doc_info.items())},
        **{
            name: {query: [_whole(hit) for hit in retriever.retrieve(query)] for query in QUERIES}
            for name, retriever in retrievers.items()
        },
    }


def _whole(hit: NodeWithScore) -> list[Any]:
    return [hit.score, hit.node.to_dict()]


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]), json.loads(sys.argv[2]))))
