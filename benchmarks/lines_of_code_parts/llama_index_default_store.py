"""Documents to answers in LlamaIndex with its default vector store."""

import json
import sys
from pathlib import Path

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.embeddings.huggingface import HuggingFaceEmbedding


def read_documents(path):
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [Document(id_=row["id"], text=row["text"], metadata={"year": row["year"]}) for row in rows]


# Store the documents, then replace one and delete one.
index = VectorStoreIndex.from_documents(
    read_documents("documents.jsonl"), embed_model=HuggingFaceEmbedding("bi-encoder")
)
index.refresh_ref_docs(read_documents("changed.jsonl"))
index.delete_ref_doc("parking", delete_from_docstore=True)

# Retrieve what is recent, and rerank it.
since = MetadataFilters(filters=[MetadataFilter(key="year", operator=">=", value=2024)])
retriever = index.as_retriever(similarity_top_k=5, filters=since)
reranker = SentenceTransformerRerank(model="cross-encoder", top_n=1)
for question in sys.argv[1:]:
    for node in reranker.postprocess_nodes(retriever.retrieve(question), query_str=question):
        print(f"{question} [{node.node.ref_doc_id}] {node.text}")
