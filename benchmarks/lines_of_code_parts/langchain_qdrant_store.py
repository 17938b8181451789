"""Documents to answers in LangChain with langchain-qdrant, in memory."""

import json
import sys
import uuid
from pathlib import Path

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_qdrant import QdrantVectorStore
from qdrant_client.models import FieldCondition, Filter, Range


def point_id(name):
    # Qdrant takes integers and UUIDs only.
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def read_documents(path):
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [
        Document(id=point_id(row["id"]), page_content=row["text"], metadata={"name": row["id"], "year": row["year"]})
        for row in rows
    ]


# Store the documents, then replace one and delete one.
store = QdrantVectorStore.from_documents(
    read_documents("documents.jsonl"),
    HuggingFaceEmbeddings(model_name="bi-encoder"),
    location=":memory:",
    collection_name="documents",
)
store.add_documents(read_documents("changed.jsonl"))
store.delete([point_id("parking")])

# Retrieve what is recent, and rerank it.
since = Filter(must=[FieldCondition(key="metadata.year", range=Range(gte=2024))])
recent = store.as_retriever(search_kwargs={"k": 5, "filter": since})
trusted = {"trust_remote_code": True}  # Not counted: few cross-encoders need it, and the starter is one of them.
scorer = HuggingFaceCrossEncoder(model_name="cross-encoder", model_kwargs=trusted)
reranker = CrossEncoderReranker(model=scorer, top_n=1)
retriever = ContextualCompressionRetriever(base_retriever=recent, base_compressor=reranker)
for question in sys.argv[1:]:
    for document in retriever.invoke(question):
        print(f"{question} [{document.metadata['name']}] {document.page_content}")
