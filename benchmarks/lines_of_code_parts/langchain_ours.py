"""Documents to answers in LangChain with rerank_integrations."""

import json
import sys
from pathlib import Path

from langchain_core.documents import Document

from rerank_integrations.langchain import ColBERTVectorStore, CrossEncoderRerank, RerankingRetriever


def read_documents(path):
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [Document(id=row["id"], page_content=row["text"], metadata={"year": row["year"]}) for row in rows]


# Store the documents, then replace one and delete one.
store = ColBERTVectorStore.from_documents(read_documents("documents.jsonl"), "starter")
store.add_documents(read_documents("changed.jsonl"))
store.delete(["parking"])

# Retrieve what is recent, and rerank it.
recent = store.as_retriever(search_kwargs={"k": 5, "filter": {"year": {"$gte": 2024}}})
retriever = RerankingRetriever(base_retriever=recent, compressor=CrossEncoderRerank(model="starter", top_n=1))
for question in sys.argv[1:]:
    for document in retriever.invoke(question):
        print(f"{question} [{document.id}] {document.page_content}")
