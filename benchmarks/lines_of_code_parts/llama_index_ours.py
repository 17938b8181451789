"""Documents to answers in LlamaIndex with rerank_integrations."""

import json
import sys
from pathlib import Path

from llama_index.core import Document
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from rerank_integrations.llama_index import ColBERTManagedIndex, CrossEncoderRerank


def read_documents(path):
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [Document(id_=row["id"], text=row["text"], metadata={"year": row["year"]}) for row in rows]


# Store the documents, then replace one and delete one.
index = ColBERTManagedIndex.from_documents(read_documents("documents.jsonl"), "starter")
index.refresh_ref_docs(read_documents("changed.jsonl"))
index.delete_ref_doc("parking")

# Retrieve what is recent, and rerank it.
since = MetadataFilters(filters=[MetadataFilter(key="year", operator=">=", value=2024)])
retriever = index.as_retriever(similarity_top_k=5, filters=since)
reranker = CrossEncoderRerank(model="starter", top_n=1)
for question in sys.argv[1:]:
    for node in reranker.postprocess_nodes(retriever.retrieve(question), query_str=question):
        print(f"{question} [{node.node.ref_doc_id}] {node.text}")
