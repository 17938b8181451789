"""A cascade in both frameworks: ColBERT over all candidates, a cross-encoder over the best few, within a time budget.

pip install 'rerank-integrations[langchain,llama-index,starter]'
python cascade_rerank.py "how do I read one file of an archive?"
"""

import sys

from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from rerank_integrations import ColBERTModel, CrossEncoderModel, langchain, llama_index

LIBRARY = {
    "zipfile": "ZipFile.read returns the bytes of one member without extracting the archive.",
    "tarfile": "TarFile.extractall unpacks every member of a tar archive into a folder.",
    "csv": "csv.reader goes through the rows of a file of comma-separated values.",
    "shutil": "shutil.disk_usage tells how much space is free on a disk.",
    "heapq": "heapq.nlargest returns the n largest elements of a data set.",
    "secrets": "The secrets module makes random numbers fit for passwords and tokens.",
    "difflib": "difflib.get_close_matches finds the words most similar to a misspelt one.",
}

question = " ".join(sys.argv[1:]) or "how do I read one file of an archive?"
# Both frameworks share one copy of each; put a real one's name here, such as "BAAI/bge-reranker-base".
colbert, reader = ColBERTModel("starter"), CrossEncoderModel("starter")


def cascade(framework, time_budget=None):
    """In either framework: four of all by ColBERT, two of the four by the cross-encoder."""
    stages = [framework.ColBERTRerank(model=colbert, top_n=4), framework.CrossEncoderRerank(model=reader, top_n=2)]
    return framework.CascadeRerank(stages=stages, time_budget=time_budget)


def show(name, metadata):
    """The keys are those of docs/reference/notes.md."""
    scores = ", ".join(f"{stage} {score:.3f}" for stage, score in metadata["rerank_scores"].items())
    print(f"  [{name}] was {metadata['retrieval_rank']} of {len(LIBRARY)}: {scores}")


# As a retriever would give them, the best one last.
documents = [Document(id=name, page_content=text) for name, text in reversed(LIBRARY.items())]
nodes = [NodeWithScore(node=TextNode(id_=name, text=text)) for name, text in reversed(LIBRARY.items())]

print("LangChain")
for document in cascade(langchain).compress_documents(documents, question):
    show(document.id, document.metadata)
print("LlamaIndex")
for found in cascade(llama_index).postprocess_nodes(nodes, query_str=question):
    show(found.node_id, found.metadata)

print("With a millisecond for all of it")
first = cascade(langchain, time_budget=0.001).compress_documents(documents, question)[0]
print(f"  [{first.id}] is first still; {first.metadata['rerank_stopped']}")
