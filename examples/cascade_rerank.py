"""A cascade in both frameworks: ColBERT for all candidates, a cross-encoder for the best, within a time budget.

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
# Both frameworks share one loaded copy of each. For better scores name a larger model: "BAAI/bge-reranker-base".
colbert, cross_encoder = ColBERTModel("starter"), CrossEncoderModel("starter")


def cascade(framework, time_budget=None):
    """Return a cascade in either framework: ColBERT keeps four of all, the cross-encoder two of the four."""
    stages = [
        framework.ColBERTRerank(model=colbert, top_n=4),
        framework.CrossEncoderRerank(model=cross_encoder, top_n=2),
    ]
    return framework.CascadeRerank(stages=stages, time_budget=time_budget)


def show(name, metadata):
    """Print the scores of all stages; docs/reference/notes.md explains the keys."""
    scores = ", ".join(f"{stage} {score:.3f}" for stage, score in metadata["rerank_scores"].items())
    print(f"  [{name}] was {metadata['retrieval_rank']} of {len(LIBRARY)}: {scores}")


# The candidates of a retriever, with the best one last.
documents = [Document(id=name, page_content=text) for name, text in reversed(LIBRARY.items())]
nodes = [NodeWithScore(node=TextNode(id_=name, text=text)) for name, text in reversed(LIBRARY.items())]

print("LangChain")
for document in cascade(langchain).compress_documents(documents, question):
    show(document.id, document.metadata)
print("LlamaIndex")
for node in cascade(llama_index).postprocess_nodes(nodes, query_str=question):
    show(node.node_id, node.metadata)

print("With a time budget of a millisecond")
first = cascade(langchain, time_budget=0.001).compress_documents(documents, question)[0]
print(f"  [{first.id}] is still first; {first.metadata['rerank_stopped']}")
